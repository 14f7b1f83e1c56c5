"""Captured arguments and results are valid JSON without secrets, and capturing never disturbs the call."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracemind_otel as tm
from tests.support import Captured, attributes
from tracemind_otel.otel.capture import LIMIT, as_json, named_arguments
from tracemind_otel.otel.redaction import PATTERNS


class Colour(Enum):
    RED = "red"


class Name(Enum):
    PASSWORD = "password"


@dataclass
class Order:
    number: int
    api_key: str


class Model:
    """A model with pydantic's methods."""

    model_fields = {"name": object(), "password": object()}  # noqa: RUF012

    def __init__(self) -> None:
        self.name, self.password = "n", "hunter2"


class Opaque:
    def __repr__(self) -> NoReturn:
        raise AssertionError("repr must not be called")

    __str__ = __repr__


class Failing(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("the prompt")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (float("nan"), '"nan"'),
        (float("-inf"), '"-inf"'),
        (10**400, '"<int of 1329 bits>"'),
        ("ä\n", '"ä\\n"'),
        (b"abc", '"<bytes of 3>"'),
        (Decimal("1.10"), '"1.10"'),
        (date(2026, 11, 23), '"2026-11-23"'),
        (datetime(2026, 11, 23, 1, tzinfo=UTC), '"2026-11-23T01:00:00+00:00"'),
        (Colour.RED, '"red"'),
        ([1, (2, 3), {4}], "[1, [2, 3], [4]]"),
        (deque([1]), "[1]"),
        ({"a": {"b": []}}, '{"a": {"b": []}}'),
        ({1: "x", None: "y", (1, 2): "z"}, '{"1": "x", "null": "y", "[1, 2]": "z"}'),
        (Order(1, "k"), '{"number": 1, "api_key": "[redacted]"}'),
        (Model(), '{"name": "n", "password": "[redacted]"}'),
        (Opaque(), '"<tests.test_content.Opaque>"'),
        (Opaque, '"<builtins.type>"'),
        (Failing(a=1), '"<tests.test_content.Failing: not shown>"'),
    ],
    ids=range(22),
)
def test_every_value_has_a_form(value: object, text: str) -> None:
    """Plain values are captured as they are, containers and dataclasses by their content, others by their class."""
    assert as_json(value) == text


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apiKey", "API-KEY", "x-api-key", "openai_api_key", "password", "db_password", "secret"),
        *("client_secret", "secret_key", "authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "token"),
        *("access_token", "accessToken", "credentials", "private_key", "passphrase", "password1", "passwords", "pass"),
        *("passcode", "jwt", "auth_header", "X-Auth-Key", "Ocp-Apim-Subscription-Key", "account_key", "signing_key"),
        *("private_key_pem", "client_secret_value", "clientsecret", "authtoken", "accesstoken", "openai.api.key"),
        *("apikeys", "refresh_tokens", "dbPassword", "password_hash", "PGPASSWORD", "DBPassword", "AWSSecretKey"),
        *("HTTPAuthorization", "XApiKey"),
    ],
)
def test_a_name_that_says_secret(name: str) -> None:
    """A value whose name says that it is a secret is redacted."""
    assert json.loads(as_json({name: "hunter2", "nested": [{name: {"a": "hunter2"}}]})) == {
        name: "[redacted]",
        "nested": [{name: "[redacted]"}],
    }


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "tokens",
        "token_count",
        "author",
        "authors",
        "keyboard",
        "monkey",
        "passenger",
        "passed",
        "key",
        "keys",
        "primary_key",
        "bypass_cache",
        "tokenizer",
        "secretary",
        "cookiecutter",
    ],
)
def test_a_name_that_only_looks_like_it(name: str) -> None:
    """A value whose name only resembles a secret's is kept."""
    assert json.loads(as_json({name: 5})) == {name: 5}


SECRETS = [
    "sk-proj-abcdefghijklmnop1234",
    "AIzaSyA1234567890abcdefghijklmno",
    "ghp_abcdefghijklmnopqrstuvwxyz0123",
    "xoxb-123456789012-abcdefghij",
    "AKIAIOSFODNN7EXAMPLE",
    "Bearer abcdefgh12345678",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "sk-ant-api03-abcdefgh1234_ijkl-mnop",
    "csk-abcdefgh1234ijklmnop",
    "nvapi-abcdefgh1234ijklmnop",
    "tgp_v1_abcdefgh1234ijklmnop",
    "r8_abcdefgh1234ijklmnop",
    "xapp-1-A012345678-0123456789",
    "hf_AbcDefGhiJklMnoPqrStuVwxYzabcDefGh",
    "gho_AbcDefGhiJklMnoPqrStuVwx",
    "bearer abcdefgh12345678",
    "BASIC dXNlcjpwYXNz",
]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_key_inside_a_text(secret: str) -> None:
    """A key inside a string is redacted, and the rest is kept."""
    assert json.loads(as_json(f"before {secret} after")) == "before [redacted] after"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:hunter2@example.com/x", "https://[redacted]@example.com/x"),
        ("postgres://u:hunter2@db:5432/shop", "postgres://[redacted]@db:5432/shop"),
        ("GET /v1?q=1&key=hunter2&n=2", "GET /v1?q=1&key=[redacted]&n=2"),
        ("GET /v1?api_key=hunter2", "GET /v1?api_key=[redacted]"),
        ("password=hunter2; port=1", "password=[redacted]; port=1"),
        ('{"api_key": "hunter2 x", "n": 1}', '{"api_key": [redacted], "n": 1}'),
        (r'"{\"clientSecret\": \"hunter2\"}"', None),
        ("Authorization: Basic hunter2", "Authorization: [redacted]"),
        ("Authorization: Bearer hunter2-12345678", "Authorization: [redacted]"),
        ("Authorization: ApiKey hunter2\nAccept: a/b", "Authorization: [redacted]\nAccept: a/b"),
        ("Cookie: a=1; sid=hunter2", "Cookie: [redacted]"),
        ('{"Authorization": "Key hunter2", "n": 1}', None),
        (r'{"password": "ab\"cd hunter2"}', '{"password": [redacted]}'),
        ('{"password": "never closed hunter2', '{"password": [redacted]'),
        ("dbPassword=hunter2 userToken=hunter2 PGPASSWORD=hunter2", None),
        ('password := "hunter2"', "password := [redacted]"),
        ('if password == "hunter2":', "if password == [redacted]:"),
        ('"api_key" => "hunter2"', '"api_key" => [redacted]'),
        ("password=b'hunter2'", "password=b[redacted]"),
        ('password = """hunter2\nhunter2"""', "password = [redacted]"),
        ("api_key=SecretStr('hunter2')", "api_key=SecretStr([redacted])"),
        (r"password='it\'s hunter2'", "password=[redacted]"),
        ('{"password": ["hunter2"]}', '{"password": [[redacted]]}'),
        ('{"Authorization": ["Token hunter2"]}', None),
        ('Cookie: a="b"; sid=hunter2', "Cookie: [redacted]"),
        ("curl -H 'Authorization: Token hunter2' https://a.example", None),
        ('os.environ["DB_PASSWORD"] = "hunter2"', 'os.environ["DB_PASSWORD"] = [redacted]'),
        ('headers["Authorization"] = "Token hunter2"', None),
        (
            r'"{\"password\": \"hunter2\", \"city\": \"Paris\"} ok?"',
            r'"{\"password\": [redacted], \"city\": \"Paris\"} ok?"',
        ),
        ("token=hunter2", "token=[redacted]"),
        ("id_sk-abcdefgh1234ijklmnop", "id_[redacted]"),
        ("x%20sk-abcdefgh1234ijklmnop", "x%20[redacted]"),
        (r"x\nsk-abcdefgh1234ijklmnop", r"x\n[redacted]"),
    ],
)
def test_a_secret_by_its_name_inside_a_text(text: str, shown: str | None) -> None:
    """Named secrets are redacted in headers, queries, settings, and the JSON of a tool's arguments."""
    found = json.loads(as_json(text))
    assert "hunter2" not in found
    assert shown is None or found == shown


@pytest.mark.parametrize(
    "text",
    [
        "Basic information about bearer bonds",
        "ASIA-Pacific-region-shipping",
        "skeleton-components-of-a-page",
        "the pk_customer_orders table",
        "rk3588-orangepi5-plus-board",
        "max_tokens=500, tokens: 12, session tokens: 1500",
        "https://example.com/a:b@c",
        "the key: a song",
        'pw = getpass("Password: ")\nname = input("Name: ")',
        'The form says "Password:" and "Name:" beside it',
    ],
)
def test_prose_is_left_alone(text: str) -> None:
    """Text without a secret is captured unchanged."""
    assert json.loads(as_json(text)) == text


class Credentials(NamedTuple):
    user: str
    password: str


@dataclass
class Hidden:
    shown: str
    pin: str = field(repr=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Credentials("ada", "hunter2"), {"user": "ada", "password": "[redacted]"}),
        (Hidden("a", "hunter2"), {"shown": "a", "pin": "[redacted]"}),
        ([("x-api-key", "hunter2"), ("accept", "a/b")], [["x-api-key", "[redacted]"], ["accept", "a/b"]]),
        ([(b"Authorization", b"hunter2")], [["<bytes of 13>", "[redacted]"]]),
        ({"name": "x-api-key", "value": "hunter2"}, {"name": "x-api-key", "value": "[redacted]"}),
        ({"Value": "hunter2", "Name": "DB_PASSWORD"}, {"Value": "[redacted]", "Name": "DB_PASSWORD"}),
        ({"name": "accept", "value": "a/b"}, {"name": "accept", "value": "a/b"}),
        ({b"password": "hunter2"}, {"password": "[redacted]"}),
        ({Name.PASSWORD: "hunter2"}, {'"password"': "[redacted]"}),
        ({("db", "password"): "hunter2"}, {'["db", "password"]': "[redacted]"}),
    ],
    ids=range(10),
)
def test_a_name_in_any_container(value: object, shown: object) -> None:
    """Secrets are found in named tuples, header lists, keys of other types, and fields that a class hides."""
    assert json.loads(as_json(value)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("sk-" * 840, "ghp_" * 600, "-sk-".join(["abcdefgh"] * 200), "bearer " + "a" * 2_400, "password=" * 280),
        *("secret" * 420, '"' * 2_500, "\\" * 2_500, "a" * 2_500, "a_" * 1_250, "://a:" * 500, '"password": "' * 200),
    ],
    ids=range(12),
)
def test_no_text_takes_long(text: str) -> None:
    """No string takes long to redact, since the event loop waits for it."""
    began = time.process_time()
    as_json([text] * 20)
    assert time.process_time() - began < 2


def test_what_was_taken_out_before_brings_no_half_key_into_view() -> None:
    """Redacting a long key brings no part of a later key into view."""
    for gap in range(1_850, 1_950):
        text = "eyJ" + "a" * 600 + " " * gap + "AKIAIOSFODNN7EXAMPLE" + " tail" * 100
        assert "AKIA" not in as_json(text)


class Liar:
    """Claims a class that it does not have, as proxies do, and raises when it is used."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError("hunter2")


class Shouting(str):
    def __str__(self) -> NoReturn:
        raise RuntimeError("hunter2")


def test_no_object_is_asked_what_it_is() -> None:
    """Unbound proxies and odd strings neither fail the call nor run code."""
    assert json.loads(as_json([Liar(), Shouting("text")])) == ["<tests.test_content.Liar>", "text"]


def test_any_exporter_can_encode_it() -> None:
    """Half a surrogate pair, which UTF-8 cannot encode, is captured as its escape."""
    as_json("a\ud800b").encode("utf-8")
    assert json.loads(as_json("a\ud800b")) == "a\ud800b"


def test_no_more_is_looked_at_than_fits() -> None:
    """A thousand long strings take about as long as one, since the event loop waits for it."""
    looked = 0

    class Texts(dict[str, str]):
        def items(self) -> Any:
            nonlocal looked
            for key, value in super().items():
                looked += 1
                yield key, value

    as_json([Texts({str(n): "x y " * 500 for n in range(100)}) for _ in range(100)])
    assert looked < 300


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
@pytest.mark.parametrize("shown", [2000, 500, 100, 30])
def test_a_key_where_the_text_is_cut(secret: str, shown: int) -> None:
    """Redaction comes before truncation, so half a key is never shown."""
    for offset in range(1, len(secret), 5):
        text = " " * (shown - offset) + secret + " tail" * 2_000
        value = [text] * {2000: 1, 500: 5, 100: 30, 30: 1000}[shown]
        assert secret[:offset].strip() not in as_json(value).replace("[redacted]", "") or offset < 9


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=50,
)


@given(plain, st.integers(64, 5_000))
def test_json_within_the_limit(value: object, limit: int) -> None:
    """Every value gives valid JSON within the limit."""
    text = as_json(value, limit=limit)
    assert len(text) <= limit
    json.loads(text)


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 1_000] * 1_000,
        "\x00" * 100_000,
        {str(n): {"y" * 1_000: n} for n in range(1_000)},
        {"k" * 100_000: 1},
        '"' * 50_000,
    ],
    ids=range(5),
)
def test_what_is_too_long_is_cut_and_stays_json(value: object) -> None:
    """A long string ends with an ellipsis, and a container says how many items are left out."""
    text = as_json(value)
    assert len(text) <= LIMIT
    json.loads(text)
    assert "…" in text or "truncated" in text


def test_cycles_and_depth() -> None:
    """Values that contain themselves, or are too deep, are cut off."""
    loop: list[Any] = [1]
    loop.append(loop)
    assert json.loads(as_json(loop)) == [1, "…"]
    deep: Any = "bottom"
    for _ in range(10_000):
        deep = [deep]
    json.loads(as_json(deep))


def test_huge_values_are_not_walked() -> None:
    """Of ten million items, only those that are shown are read."""
    looked = 0

    class Counts(list[int]):
        def __iter__(self) -> Iterator[int]:
            nonlocal looked
            for item in super().__iter__():
                looked += 1
                yield item

    text = as_json(Counts(range(10_000_000)))
    assert json.loads(text)[-1] == f"… {10_000_000 - 100} more"
    assert looked < 500


def test_a_container_that_another_thread_changes() -> None:
    """The call succeeds though another thread changes its arguments meanwhile."""
    shared = {n: n for n in range(50)}
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            shared[len(shared)] = 0
            shared.pop(next(iter(shared)))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            json.loads(as_json(shared))
    finally:
        stop.set()
        thread.join()


# --- Arguments ---


def test_arguments_have_their_names() -> None:
    """Positional arguments are captured by name; `self` is left out."""

    class Service:
        def method(self, a: int, *rest: int, key: str = "default", **more: int) -> None: ...

    signature = inspect.signature(Service.method)
    named = named_arguments(signature, (Service(), 1, 2, 3), {"key": "k", "extra": 4})
    text = as_json(named)
    assert text is not None
    assert json.loads(text) == {"a": 1, "rest": [2, 3], "key": "k", "more": {"extra": 4}}
    assert named_arguments(signature, (), {"wrong": 1}) is None


# --- On spans ---


async def test_off_by_default(capture: Captured) -> None:
    """Arguments and results are captured only on request."""

    def echo(prompt: str) -> str:
        return prompt

    for decorate in (tm.flow, tm.agent, tm.tool, tm.step):
        decorate(name="work")(echo)("the prompt")
    assert "the prompt" not in "".join(span.to_json() for span in capture.spans)


@pytest.mark.parametrize(
    ("decorate", "arguments", "result"),
    [
        (tm.flow, "tracemind.function.arguments", "tracemind.function.result"),
        (tm.agent, "tracemind.function.arguments", "tracemind.function.result"),
        (tm.tool, "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
        (tm.step, "tracemind.function.arguments", "tracemind.function.result"),
    ],
)
async def test_captured_when_asked(capture: Captured, decorate: Any, arguments: str, result: str) -> None:
    """On request, every kind of function has its arguments and result captured, and a generator its items."""
    options = {"name": "work", "capture_arguments": True, "capture_result": True}

    def function(a: int, *, api_key: str) -> dict[str, int]:
        return {"a": a}

    async def coroutine(a: int, *, api_key: str) -> dict[str, int]:
        return {"a": a}

    def generator(a: int, *, api_key: str) -> Generator[int]:
        yield from range(a)

    async def async_generator(a: int, *, api_key: str) -> AsyncGenerator[int]:
        for item in range(a):
            yield item

    captured = decorate(**options)
    captured(function)(3, api_key="hunter2")
    await captured(coroutine)(3, api_key="hunter2")
    list(captured(generator)(3, api_key="hunter2"))
    [item async for item in captured(async_generator)(3, api_key="hunter2")]
    found = [attributes(span) for span in capture.spans]
    assert [each[arguments] for each in found] == ['{"a": 3, "api_key": "[redacted]"}'] * 4
    assert [each[result] for each in found] == ['{"a": 3}'] * 2 + ["[0, 1, 2]"] * 2


def test_a_result_that_never_came(capture: Captured) -> None:
    """A function that raises has its arguments captured and no result."""

    @tm.step(name="work", capture_arguments=True, capture_result=True)
    def fails(a: int) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        fails(1)
    found = attributes(capture.span("work"))
    assert found["tracemind.function.arguments"] == '{"a": 1}'
    assert "tracemind.function.result" not in found


def test_a_long_generator(capture: Captured) -> None:
    """Only the first hundred items of a generator are captured, since a stream may never end."""

    @tm.step(name="work", capture_result=True)
    def many() -> Generator[int]:
        yield from range(1_000)

    assert sum(many()) == 499_500
    assert json.loads(attributes(capture.span("work"))["tracemind.function.result"]) == list(range(100))


SECRET_PIECES = st.sampled_from(
    [
        *(
            "api_key=",
            '"password": "',
            "Authorization: Bearer ",
            "sk-",
            "AbCdEf123456789012",
            "token = ",
            "\\\\n",
            '"',
            "'",
        ),
        *("'''", "eyJhbGciOiJIUzI1NiJ9.abc", "https://u:p@h/", "?key=", "AKIA1234567890ABCDEF", "x-api-key", "secret_"),
        *(
            "-----BEGIN RSA PRIVATE KEY-----",
            "cookie=",
            "set-cookie: a=b; c",
            '\\\\"',
            "\u0130",
            "\u017fecret=",
            "[",
            "foo.",
        ),
        *(
            "basic dXNlcjpwYXNz",
            "client secret: ",
            "a" * 40,
            "monkey",
            "\u0131",
            "\u212a=",
            "%20",
            "db_password2=",
            ";",
        ),
    ]
)


@given(st.lists(SECRET_PIECES | st.text(max_size=6), max_size=30).map("".join))
def test_looking_for_words_first_changes_nothing(text: str) -> None:
    """Patterns that are tried only near their words find what they find when they are tried everywhere."""
    for hinted in PATTERNS:
        assert hinted.sub(lambda found: f"<{found[0]}>", text) == hinted.pattern.sub(
            lambda found: f"<{found[0]}>", text
        )

"""The pytest plugin, tried on suites that pytest runs: fixtures, budgets, the report and the baseline."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import tracemind_otel as tm
from tests.pages import write_files
from tests.programs import run
from tracemind_otel.testing import FakeLLM, LLMSpans

pytest_plugins = ("pytester",)

PLUGIN = "tracemind_otel.testing.plugin"
IS_INSTALLED = bool(entry_points(group="pytest11", name="tracemind_otel"))
"""Whether pytest finds the entry point by itself, as it does where the package is installed."""
ENTRY_POINT = () if IS_INSTALLED else ("-p", "tracemind_otel.testing.entry_point")

APPLICATION = """
import asyncio
import tracemind_otel as tm

@tm.flow(name="answer")
async def answer(prompt="Say hi", model="openai/gpt-4o-mini"):
    return await tm.llm_call(model, prompt, step="reply")

def ask(*arguments, **options):
    return asyncio.run(answer(*arguments, **options))
"""
"""The application that the suites test."""

Suite = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True, scope="module")
def _everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run in this process forgets what it was the first to import; so nothing is left for it to import."""
    for name in ("plugin", "spending_plugin", "recorded_spans", "span_watch"):
        importlib.import_module(f"tracemind_otel.testing.{name}")
    with LLMSpans().recording(), tm.configure(file=tmp_path_factory.mktemp("spans") / "spans.jsonl"):
        with FakeLLM().installed():
            tm.llm_call_sync("openai/gpt-4o-mini", "Say hi")
        with pytest.raises(tm.LLMAuthenticationError):
            tm.llm_call_sync("openai/gpt-4o-mini", "Say hi")


@pytest.fixture(autouse=True)
def _ini(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """Runs pytest on the source of a test module, beside the application."""
    pytester.makepyfile(application=APPLICATION)

    def run_suite(source: str = "", *arguments: object) -> pytest.RunResult:
        if source:
            header = "import pytest\nimport tracemind_otel as tm\nfrom application import answer, ask\n"
            pytester.makepyfile(test_it=f"{header}\n{source}")
        sys.modules.pop("application", None)
        return pytester.runpytest_inprocess("-p", PLUGIN, "-p", "no:cacheprovider", *map(str, arguments))

    return run_suite


# --- The fixtures ---


def test_spans_of_a_test_are_plain(suite: Suite) -> None:
    """Two runs of a test show equal spans and metrics, with short ids and a clock that only spans move."""
    done = suite(
        """
seen = []

@pytest.mark.parametrize("run", [1, 2])
def test_spans(run, fake_llm, llm_spans):
    fake_llm.fail("503")
    ask()
    flow, call, first, last = llm_spans
    assert (flow["id"], flow["parent"], flow["start"], flow["end"]) == ("s1", None, 1, 8)
    assert (call["id"], call["parent"], call["start"], call["end"]) == ("s2", "s1", 2, 7)
    assert [(span["name"], span["start"], span["end"]) for span in (first, last)] == [
        ("attempt 1", 3, 4),
        ("attempt 2", 5, 6),
    ]
    assert [event["name"] for event in call["events"]] == ["tracemind.retry"]
    assert llm_spans.total("tracemind.llm.retries") == 1
    seen.append(llm_spans.as_json())
    assert len(set(seen)) == 1
"""
    )
    done.assert_outcomes(passed=2)


def test_a_span_that_never_ends_fails_the_test(suite: Suite) -> None:
    """A stream that is left open is named; one that a fixture around the test holds open is no fault."""
    done = suite(
        """
@pytest.fixture
async def kept():
    streams = []
    yield streams
    for stream in streams:
        await stream.aclose()

async def test_left_open(kept, fake_llm, llm_spans):
    stream = tm.llm_stream("openai/gpt-4o-mini", "Say hi")
    await anext(stream)
    kept.append(stream)

@pytest.fixture
def around(llm_spans):
    with tm.flow(name="around"):
        yield

def test_around(around, fake_llm):
    ask()
"""
    )
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*1 span of the test never ended: chat gpt-4o-mini. *"])


def test_a_tests_own_configure_goes_on_working(suite: Suite, tmp_path: Path) -> None:
    """Spans and metrics are seen by the fixture, and reach the file that the test has configured."""
    done = suite(
        f"""
def test_configured(fake_llm, llm_spans):
    with tm.configure(file={str(tmp_path / "spans.jsonl")!r}):
        ask()
    ask()
    assert llm_spans.names == ["invoke_workflow answer", "chat gpt-4o-mini"] * 2
    assert llm_spans.total("gen_ai.client.token.usage") == 2 * (2 + 3)
"""
    )
    done.assert_outcomes(passed=1)
    assert (tmp_path / "spans.jsonl").read_text().count('"chat gpt-4o-mini"') == 1


def test_captured_works_inside_the_fixture(suite: Suite) -> None:
    """`captured()` and `llm_spans` see the same calls, each once, and the providers before are put back."""
    done = suite(
        """
from tracemind_otel.testing import captured

def test_both(fake_llm, llm_spans):
    with captured() as inner:
        ask()
    ask()
    assert inner.total("gen_ai.client.token.usage") == 5
    assert llm_spans.total("gen_ai.client.token.usage") == 10
    assert len(llm_spans) == 4

def test_another(fake_llm, llm_spans):
    ask()
    assert llm_spans.total("gen_ai.client.token.usage") == 5
"""
    )
    done.assert_outcomes(passed=2)


def test_anyio_runs_tests_too(suite: Suite, pytester: pytest.Pytester) -> None:
    """Fixtures and budgets hold in tests and fixtures that anyio runs."""
    pytester.makeini("[pytest]\n")
    done = suite(
        """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def greeting(fake_llm, anyio_backend):
    return await answer()

@pytest.mark.anyio
@pytest.mark.llm_budget(calls=2)
async def test_within(greeting, llm_spans):
    await answer()
    assert len(llm_spans) == 2

@pytest.mark.anyio
@pytest.mark.llm_budget(calls=1)
async def test_over(greeting):
    await answer()
""",
        *("-p", "no:asyncio"),
    )
    done.assert_outcomes(passed=1, failed=1)


def test_the_fake_answers_every_provider(suite: Suite) -> None:
    """Replies go by pattern, model and number; faults come first; requests are kept; nothing waits."""
    done = suite(
        """
from tracemind_otel.ai.llm import LLMUsage

def test_replies(fake_llm):
    fake_llm.reply("Paris", to="capital of France").reply("once", times=1).reply("other", model="claude-haiku-4-5")
    assert ask("The capital of France?").text == "Paris"
    assert ask("Hello").text == "once"
    assert ask("Hello", "anthropic/claude-haiku-4-5").text == "other"
    with pytest.raises(tm.LLMRequestError, match=r"fake_llm has no reply to this request for 'gpt-4o-mini'; add one"):
        ask("Hello")
    assert [request.provider for request in fake_llm.requests] == ["openai", "openai", "anthropic", "openai"]

def test_faults(fake_llm):
    fake_llm.fail("timeout", "429").fail("connection", to="again").reply(lambda request: request.prompt.upper())
    reply = ask("hello")
    assert (reply.text, reply.retries) == ("HELLO", 2)
    assert ask("again").retries == 1

async def test_streams(fake_llm):
    fake_llm.fail("cut after=1").reply("", chunks=["a", "b", "c"])
    stream = tm.llm_stream("gemini/gemini-2.5-flash", "Hi")
    with pytest.raises(tm.LLMConnectionError):
        [piece async for piece in stream.text_deltas()]
    stream = tm.llm_stream("gemini/gemini-2.5-flash", "Hi")
    assert [piece async for piece in stream.text_deltas()] == ["a", "b", "c"]

async def test_tool_calls(fake_llm):
    call = tm.ToolCall("c1", "weather", {"city": "Rome"})
    usage = LLMUsage(10, 5, 15)
    fake_llm.reply(tm.LLMResponse("", usage, tool_calls=(call,), finish_reason="tool_call"))
    reply = await tm.llm_call("anthropic/claude-haiku-4-5", "Hi")
    assert (reply.tool_calls[0].name, reply.input_tokens) == ("weather", 10)
    delta, end = [event async for event in tm.llm_stream("anthropic/claude-haiku-4-5", "Hi")]
    assert (delta.name, delta.arguments, end.response.tool_calls) == ("weather", '{"city": "Rome"}', (call,))

def test_mistakes(fake_llm):
    with pytest.raises(tm.ConfigError, match="begins with '42'"):
        fake_llm.fail("42")
    with pytest.raises(tm.ConfigError, match="must be a regular expression"):
        fake_llm.reply("x", to="(")

def test_the_providers_are_back():
    with pytest.raises(tm.LLMAuthenticationError):
        ask()
""",
    )
    done.assert_outcomes(passed=6)


def test_a_provider_may_be_added_meanwhile(suite: Suite, pytester: pytest.Pytester) -> None:
    """A provider that the application adds during a test is replaced as well, and stays added."""
    pytester.makepyfile(
        test_mine="""
import tracemind_otel as tm
from application import ask
from tracemind_otel.ai.llm import LLMUsage

class Mine(tm.AsyncLLMClient):
    provider_name = "mine"

    def __init__(self, *, api_key=None, base_url=None): ...

    async def complete(self, req):
        return tm.LLMResponse("my own", LLMUsage(1, 1, 2))

def test_added_meanwhile(fake_llm):
    tm.LLMClientFactory.register("mine", Mine)
    assert ask("Hello", "mine/model").text == "[mine:model] olleH"

def test_stays_added():
    assert ask("Hello", "mine/model").text == "my own"
"""
    )
    pytester.runpytest_subprocess("-p", PLUGIN).assert_outcomes(passed=2)


@pytest.mark.parametrize("variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}])
def test_spans_are_seen_where_telemetry_is_off(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Variables that keep tests from sending do not keep the fixture from recording."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = suite("def test_spans(fake_llm, llm_spans):\n    ask()\n    assert len(llm_spans) == 2")
    done.assert_outcomes(passed=1)


def test_the_suite_of_the_page_passes(pytester: pytest.Pytester) -> None:
    """What docs/testing.md shows runs as it is."""
    write_files("docs/testing.md", pytester.path)
    pytester.runpytest_inprocess("-p", PLUGIN).assert_outcomes(passed=1)


# --- The marker ---


def test_a_test_over_its_budget_fails(suite: Suite) -> None:
    """Calls, tokens and dollars are limited, and the message names the spans that spent."""
    done = suite(
        """
pytestmark = pytest.mark.llm_budget(calls=2)

@pytest.mark.llm_budget(usd=0.01, tokens=2000)
def test_within(fake_llm):
    ask()

@pytest.mark.llm_budget(calls=3)
def test_the_nearest_marker_wins(fake_llm):
    ask(), ask(), ask()

@pytest.mark.llm_budget(usd=1e-6)
def test_dollars(fake_llm):
    ask()

def test_calls(fake_llm):
    ask(), ask(), ask()

@pytest.mark.llm_budget(tokens=4)
async def test_tokens(fake_llm):
    await answer()

@pytest.mark.llm_budget(usd=1)
def test_no_price(fake_llm):
    ask("Hi", "openai/no-such-model")

@pytest.mark.llm_budget(calls=0)
def test_denied_calls_are_not_sent(fake_llm):
    with pytest.raises(tm.BudgetExceededError), tm.budget(max_llm_calls=0):
        ask()

@pytest.mark.llm_budget(calls=0)
def test_its_own_fault(fake_llm):
    ask()
    assert False, "the fault of the test itself"
"""
    )
    done.assert_outcomes(passed=3, failed=5)
    done.stdout.fnmatch_lines(
        [
            "*$2.1e-06; the limit is $1e-06",
            "  answer > reply > chat gpt-4o-mini: 1 call, 5 tokens, $2.1e-06",
            "3 calls; the limit is 2",
            "5 tokens; the limit is 4",
            "the cost of 1 call to openai/no-such-model is unknown*set a price with tm.set_prices()*",
            "*AssertionError: the fault of the test itself",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cost=1", "*test_it.py::test_marked: llm_budget has no argument 'cost'; it has usd=, calls= and tokens=*"),
        ("usd=-1", "*llm_budget has usd=-1; it must be a number of zero or more*"),
        ("calls=1.5", "*llm_budget has calls=1.5; it must be a whole number*"),
        ("usd='1'", "*llm_budget has usd='1'; it must be a number of zero or more*"),
        ("0.01", "*llm_budget takes no positional argument; write @pytest.mark.llm_budget(usd=*"),
        ("", "*llm_budget limits nothing; write @pytest.mark.llm_budget(usd=*"),
    ],
)
def test_a_wrong_marker_is_a_usage_error(suite: Suite, arguments: str, message: str) -> None:
    """A mistake in the marker ends the run before any test, and names the test and the fix."""
    done = suite(f"@pytest.mark.llm_budget({arguments})\ndef test_marked(): ...")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([message])


def test_a_wrong_marker_is_told_by_a_worker(suite: Suite, pytester: pytest.Pytester) -> None:
    """Under pytest-xdist the same message fails the test."""
    suite("@pytest.mark.llm_budget(cost=1)\ndef test_marked(): ...")
    done = pytester.runpytest_subprocess("-p", PLUGIN, "-n1")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*test_it.py::test_marked: llm_budget has no argument 'cost'; it has usd=*"])


# --- The report ---

REPORTED = """
@pytest.mark.parametrize("city", ["Rome", "Oslo"])
def test_sync(city, fake_llm):
    ask(f"What of {city}?")

async def test_asyncio(fake_llm):
    await answer()

@pytest.mark.anyio
async def test_anyio(fake_llm, anyio_backend):
    await answer(model="openai/gpt-4o")

def test_threads(fake_llm):
    tm.llm_call_sync("openai/gpt-4o-mini", "Say hi")

def test_fails(fake_llm):
    ask()
    assert False

class TestOther:
    def test_no_calls(self): ...

@pytest.fixture(scope="module")
def index():
    from tracemind_otel.testing import FakeLLM
    with FakeLLM().installed():
        ask("Make the index")

def test_shared_fixture(index): ...
"""


def test_the_report_tells_what_was_spent(suite: Suite) -> None:
    """Each test has its calls, whatever runs it; what a shared fixture spent is nobody's."""
    done = suite(REPORTED, "--llm-cost-report")
    done.assert_outcomes(passed=8, failed=1)
    done.stdout.fnmatch_lines(
        [
            "*cost of model calls*",
            "test *model *calls*",
            "fixture index ?module? *openai/gpt-4o-mini * 1 *",
            "test_it.py::test_anyio* *openai/gpt-4o * 1 *",
            "test_it.py::test_asyncio *openai/gpt-4o-mini * 1 *",
            "test_it.py::test_fails *openai/gpt-4o-mini * 1 *",
            "test_it.py::test_sync?Oslo? *openai/gpt-4o-mini * 1 *",
            "test_it.py::test_sync?Rome? *openai/gpt-4o-mini * 1 *",
            "test_it.py::test_threads *openai/gpt-4o-mini * 1 *",
            "total *all models * 8 *",
        ],
    )


def test_workers_are_merged(suite: Suite, pytester: pytest.Pytester) -> None:
    """Under pytest-xdist the report and the baseline are those of a run in one process."""
    suite(REPORTED, "--llm-cost-report", "--llm-cost-baseline=alone.json", "--llm-cost-update")
    done = pytester.runpytest_subprocess(
        *("-p", PLUGIN, "-n2", "--llm-cost-report", "--llm-cost-baseline=together.json", "--llm-cost-update")
    )
    done.assert_outcomes(passed=8, failed=1)
    done.stdout.fnmatch_lines(["test_it.py::test_threads *openai/gpt-4o-mini * 1 *", "total *all models * 8 *"])
    alone, together = ((pytester.path / name).read_text() for name in ("alone.json", "together.json"))
    assert alone == together
    (pytester.path / "together.json").write_text(together.replace('"input_tokens": 3', '"input_tokens": 2'))
    done = pytester.runpytest_subprocess("-p", PLUGIN, "-n2", "--llm-cost-baseline=together.json")
    done.assert_outcomes(passed=8, failed=1)


# --- The baseline ---

PRICED = """
from tracemind_otel.ai.llm import LLMUsage
import settings

def usage():
    now = settings.NOW
    return LLMUsage(now["input"], now["output"], cache_read_tokens=now["cached"])

def test_costs(fake_llm):
    fake_llm.reply("Hi", usage=usage()).fail(*settings.NOW["faults"])
    ask(model=settings.NOW["model"])

def test_other(fake_llm):
    ask()
"""

BEFORE: dict[str, object] = {"input": 1000, "output": 50, "cached": 800, "faults": [], "model": "openai/gpt-4o-mini"}

Settings = Callable[..., None]


@pytest.fixture
def settings(pytester: pytest.Pytester) -> Settings:
    """Sets what the sample suite's model does from now on."""

    def set_to(**changes: object) -> None:
        sys.modules.pop("settings", None)
        pytester.makepyfile(settings=f"NOW = {BEFORE | changes!r}")

    set_to()
    return set_to


BASELINE = "--llm-cost-baseline=costs.json"


@pytest.fixture
def recorded(suite: Suite, settings: Settings) -> Suite:
    """The sample suite with its baseline recorded."""
    suite(PRICED, BASELINE, "--llm-cost-update").assert_outcomes(passed=2)
    return suite


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"faults": ["503"]},
            ["1 retry; the baseline has 0", "  answer > reply > chat gpt-4o-mini: *, retries 0 -> 1"],
        ),
        (
            {"model": "openai/gpt-4o"},
            ["$*is 1566.7 % over*", "  answer > reply > chat gpt-4o: *openai/gpt-4o instead of openai/gpt-4o-mini"],
        ),
        (
            {"input": 1050},
            ["*6.2 % over*5 % is allowed", "  answer > reply > chat gpt-4o-mini: *input tokens 1,000 -> 1,050"],
        ),
        (
            {"cached": 0},
            ["*50.0 % over*", "  answer > reply > chat gpt-4o-mini: *, cached input tokens 800 -> 0"],
        ),
        (
            {"input": 1050, "output": 5000},
            ["*", "  answer > reply > chat gpt-4o-mini: *, input tokens 1,000 -> 1,050, output tokens 50 -> 5,000"],
        ),
        (
            {"model": "openai/no-such-model"},
            ["the cost of openai/no-such-model is unknown; it was $*set_prices()", "  * chat no-such-model: *unknown*"],
        ),
    ],
    ids=["a retry", "another model", "a longer prompt", "a lost cache hit", "a longer reply", "no price"],
)
def test_a_test_over_its_baseline_fails(
    recorded: Suite, settings: Settings, changes: dict[str, object], messages: list[str]
) -> None:
    """One retry, another model, a longer prompt or a lost cache hit fails the test, and the span that grew is named."""
    settings(**changes)
    done = recorded("", BASELINE)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines([*messages, "If that is meant, record it with --llm-cost-update."])


def test_a_longer_prompt_is_found_where_the_output_costs_more(suite: Suite, settings: Settings) -> None:
    """A prompt that is 5 % longer fails the test although the whole costs less than 5 % more."""
    settings(output=1000)
    suite(PRICED, BASELINE, "--llm-cost-update")
    settings(output=1000, input=1050)
    done = suite("", BASELINE)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["the prompt of answer > reply > chat gpt-4o-mini grew from 1,000 to 1,050 tokens; *"])
    settings(output=1000, input=1049)
    suite("", BASELINE).assert_outcomes(passed=2)


def test_the_tolerance_can_be_set(recorded: Suite, settings: Settings) -> None:
    """`--llm-cost-tolerance` is a percentage; exactly that much more passes."""
    settings(cached=0)
    recorded("", BASELINE, "--llm-cost-tolerance=50").assert_outcomes(passed=2)
    recorded("", BASELINE, "--llm-cost-tolerance=49.9%").assert_outcomes(passed=1, failed=1)
    settings()
    recorded("", BASELINE, "--llm-cost-tolerance=0").assert_outcomes(passed=2)


def test_less_is_no_fault(recorded: Suite, settings: Settings) -> None:
    """A cheaper model, a shorter prompt or a new cache hit passes."""
    for changes in ({"model": "openai/gpt-4.1-nano", "input": 1100}, {"input": 900}, {"cached": 1000}):
        settings(**changes)
        recorded("", BASELINE).assert_outcomes(passed=2)


def test_tokens_stand_for_an_unknown_cost(suite: Suite, settings: Settings) -> None:
    """Where a model has no price, a lost cache hit or a longer reply fails the test; a price that is found, not."""
    model = "openai/no-such-model"
    settings(model=model)
    suite(PRICED, BASELINE, "--llm-cost-update")
    suite("", BASELINE).assert_outcomes(passed=2)
    for changes, message in (
        ({"cached": 0}, "1,000 uncached input tokens; the baseline has 200, and 5 % more is allowed"),
        ({"output": 60}, "60 output tokens; the baseline has 50, and 5 % more is allowed"),
    ):
        settings(model=model, **changes)
        done = suite("", BASELINE)
        done.assert_outcomes(passed=1, failed=1)
        done.stdout.fnmatch_lines([message])
    settings(model=model)
    price = "tm.set_prices([tm.Price(model='no-such-model', input=Decimal(9), output=Decimal(9))])"
    suite(f"{PRICED}\nfrom decimal import Decimal\n{price}", BASELINE).assert_outcomes(passed=2)


def test_collecting_writes_nothing(recorded: Suite, pytester: pytest.Pytester) -> None:
    """`--collect-only` leaves the baseline as it is."""
    before = (pytester.path / "costs.json").read_bytes()
    recorded("", BASELINE, "--llm-cost-update", "--collect-only")
    assert (pytester.path / "costs.json").read_bytes() == before


def test_an_update_takes_what_passed(recorded: Suite, settings: Settings, pytester: pytest.Pytester) -> None:
    """An update replaces the tests that ran and passed, and keeps the others; a new test is told, and does not fail."""
    settings(cached=0)
    recorded("", BASELINE, "--llm-cost-update", "-k", "test_costs").assert_outcomes(passed=1, deselected=1)
    recorded("", BASELINE).assert_outcomes(passed=2)
    before = (pytester.path / "costs.json").read_text()
    assert list(json.loads(before)["tests"]) == ["test_it.py::test_costs", "test_it.py::test_other"]
    recorded(f"{PRICED}\n    assert False\ndef test_new(fake_llm):\n    ask()", BASELINE, "--llm-cost-update")
    after = json.loads((pytester.path / "costs.json").read_text())["tests"]
    assert after["test_it.py::test_other"] == json.loads(before)["tests"]["test_it.py::test_other"]
    assert "test_it.py::test_new" in after
    done = recorded(f"{PRICED}\ndef test_newer(fake_llm):\n    ask()", BASELINE)
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(["not in the baseline of LLM costs: test_it.py::test_newer; *--llm-cost-update"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "*there is no *costs.json; write it with --llm-cost-update*"),
        ("{", "*costs.json is no baseline of LLM costs (*); name another file, or delete this one and write it anew*"),
        ("[]", "*it has no JSON object*"),
        ('{"tests": {}}', "*it has no 'tracemind_llm_cost_baseline': 1*"),
        ('{"tracemind_llm_cost_baseline": 1}', "*'tests' is no object*"),
        ('{"tracemind_llm_cost_baseline": 1, "tests": {"a": 1}}', "*the entry of a is no list*"),
        (
            '{"tracemind_llm_cost_baseline": 1, "tests": {"a": [{"span": "s", "model": "m", "cost_usd": -1}]}}',
            "*the entry of a has cost_usd: -1*",
        ),
        (
            '{"tracemind_llm_cost_baseline": 1, "tests": {"a": [{"span": "s", "model": "m", "cost": 1}]}}',
            "*the entry of a has 'cost', which no row has*",
        ),
    ],
)
def test_a_wrong_baseline_is_a_usage_error(
    suite: Suite, pytester: pytest.Pytester, content: str | None, message: str
) -> None:
    """A file that is no baseline ends the run before any test, and the message says how to mend it."""
    if content is not None:
        (pytester.path / "costs.json").write_text(content)
    done = suite("def test_nothing(): ...", BASELINE)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([message])


def test_a_baseline_that_cannot_be_written_is_told(suite: Suite, pytester: pytest.Pytester) -> None:
    """The run fails at its end and names the file."""
    (pytester.path / "folder").write_text("")
    done = suite("def test_cost(fake_llm):\n    ask()", "--llm-cost-baseline=folder/costs.json", "--llm-cost-update")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stdout.fnmatch_lines(["--llm-cost-update: *costs.json cannot be written: *"])


def test_an_update_overwrites_no_other_file(suite: Suite, pytester: pytest.Pytester) -> None:
    """A file that holds something else is left as it is."""
    (pytester.path / "pyproject.toml").write_text("[project]\n")
    done = suite("def test_nothing(): ...", "--llm-cost-baseline=pyproject.toml", "--llm-cost-update")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert (pytester.path / "pyproject.toml").read_text() == "[project]\n"


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much"])
def test_a_wrong_tolerance_is_a_usage_error(suite: Suite, value: str) -> None:
    """The message names the option and what it takes."""
    done = suite("def test_nothing(): ...", f"--llm-cost-tolerance={value}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*--llm-cost-tolerance: '{value}' is no percentage of zero or more; write one such*"])


def test_an_update_needs_a_file(suite: Suite) -> None:
    """`--llm-cost-update` alone says which option it needs."""
    done = suite("def test_nothing(): ...", "--llm-cost-update")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--llm-cost-update needs --llm-cost-baseline FILE: the file to write*"])


def test_a_hundred_unchanged_runs_raise_no_alarm(suite: Suite) -> None:
    """The costs of concurrent calls, in any order, are those of the baseline, at no tolerance at all."""
    source = """
import asyncio, random

@pytest.mark.parametrize("run", range({runs}))
def test_unchanged(run, fake_llm, request):
    request.node._nodeid = "test_it.py::test_unchanged"
    prompts = ["word " * number for number in range(1, 9)]
    random.shuffle(prompts)

    async def main():
        await asyncio.gather(*(answer(prompt, model) for prompt in prompts for model in ("openai/o3", "openai/gpt-4o")))

    fake_llm.fail("503", to="^(word ){{7}}$")
    asyncio.run(main())
"""
    suite(source.format(runs=1), BASELINE, "--llm-cost-update").assert_outcomes(passed=1)
    suite(source.format(runs=100), BASELINE, "--llm-cost-tolerance=0").assert_outcomes(passed=100)


# --- Where it is not used ---


def test_it_costs_nothing_where_it_is_unused(tmp_path: Path) -> None:
    """A run that uses nothing of the plugin loads neither OpenTelemetry nor anything else of the package."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_loaded():\n"
        "    ours = {name for name in sys.modules if name.startswith(('opentelemetry', 'tracemind_otel'))}\n"
        "    assert ours == {'tracemind_otel', 'tracemind_otel.testing', 'tracemind_otel.testing.entry_point',\n"
        "                    'tracemind_otel.testing.plugin'}\n"
    )
    finished = run("-m", "pytest", "-q", *ENTRY_POINT, "-p", "no:asyncio", "test_it.py", directory=tmp_path)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("twice", [["-p", PLUGIN, *ENTRY_POINT], ["-p", PLUGIN], [*ENTRY_POINT]])
def test_it_may_be_loaded_twice(pytester: pytest.Pytester, twice: list[str]) -> None:
    """The entry point does no harm where `-p` or a conftest has loaded the plugin, and the other way round."""
    pytester.makeconftest(f"pytest_plugins = [{PLUGIN!r}]")
    pytester.makepyfile("def test_fixture(fake_llm): ...")
    pytester.runpytest_inprocess(*twice).assert_outcomes(passed=1)


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    """With `-p no:` neither fixtures nor options are there."""
    pytester.makepyfile("def test_fixture(fake_llm): ...")
    left_out = ("-p", f"no:{PLUGIN}", *ENTRY_POINT)
    done = pytester.runpytest_inprocess(*left_out)
    done.assert_outcomes(errors=1)
    assert pytester.runpytest_inprocess(*left_out, "--llm-cost-report").ret == pytest.ExitCode.USAGE_ERROR

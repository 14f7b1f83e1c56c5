"""`view --by` and `view --html`: where the money went."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.programs import Finished, run

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x07\u2066"


def attribute(key: str, value: object) -> dict[str, Any]:
    """An attribute in OTLP's JSON."""
    if isinstance(value, str):
        return {"key": key, "value": {"stringValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    return {"key": key, "value": {"doubleValue": value}}


def span(number: int, parent: int = 0, *, ms: float = 10, name: str = "", **more: Any) -> dict[str, Any]:
    """A span in OTLP's JSON; attributes by their names, with `__` for dots."""
    attributes = {key.replace("__", "."): value for key, value in more.items() if "__" in key}
    return {
        "traceId": "0" * 31 + "1",
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name or f"span {number}",
        "startTimeUnixNano": str(10**18 + number * 10**6),
        "endTimeUnixNano": str(10**18 + number * 10**6 + int(ms * 10**6)),
        "attributes": [attribute(key, value) for key, value in attributes.items()],
        "events": more.get("events", []),
        "status": more.get("status", {}),
    }


def call(number: int, parent: int, step: str, *, cost: float | None = None, **more: Any) -> dict[str, Any]:
    """A model call."""
    priced: Mapping[str, Any] = {} if cost is None else {"tracemind__cost_usd": cost}
    usage: dict[str, Any] = {"gen_ai__usage__input_tokens": 100, "gen_ai__usage__output_tokens": 10}
    named: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__request__model": "m-1",
        "tracemind__step__id": step,
    }
    return span(number, parent, name="chat m-1", **{**named, **usage, **priced, **more})


def write(path: Path, *spans: dict[str, Any]) -> Path:
    """A file of OTLP JSON lines."""
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two flows and a tool with five calls, of which one failed and one has no price."""
    return write(
        tmp_path / "spans.jsonl",
        span(1, gen_ai__workflow__name="search", user__id="ada", http__request__method="POST", http__route="/search"),
        call(2, 1, "plan", cost=0.25, ms=10),
        call(3, 1, "plan", cost=0.5, ms=30, gen_ai__usage__cache_read__input_tokens=40, tracemind__retry__count=2),
        span(4, 1, gen_ai__tool__name="look_up"),
        call(5, 4, "answer", ms=20),
        call(6, 4, "answer", ms=20, error__type="429", status={"code": 2}),
        span(7, gen_ai__workflow__name="index"),
        call(8, 7, "plan", cost=0.125, ms=50),
    )


def view(*arguments: object) -> Finished:
    """Run `view` as a user does."""
    return run("-m", "tracemind_otel", "view", *arguments, directory=Path.cwd())


def rows(done: Finished) -> dict[str, list[str]]:
    """The cells of each row of a table, by the first cell."""
    assert done.returncode == 0, done.stderr
    lines = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines() if line.strip()]
    return {cells[0]: cells[1:] for cells in lines}


def test_sums_by_step(file: Path) -> None:
    """Each step has its calls, failures, retries, tokens, cost and durations, the most expensive first."""
    table = rows(view(file, "--by", "step"))

    assert next(iter(table)) == "step"
    assert table["plan"] == ["3", "0", "2", "300", "13%", "30", "$0.875", "30 ms", "50 ms"]
    assert table["answer"] == ["2", "1", "0", "200", "0%", "20", "unknown", "20 ms", "20 ms"]
    assert table["all"] == ["5", "1", "2", "500", "8%", "50", "$0.875 + 1 unpriced", "20 ms", "50 ms"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("flow", {"search": 4, "index": 1}),
        ("endpoint", {"POST /search": 4, "(none)": 1}),
        ("tool", {"look_up": 2, "(none)": 3}),
        ("user", {"ada": 4, "(none)": 1}),
        ("model", {"m-1": 5}),
    ],
)
def test_sums_by_other_things(file: Path, by: str, expected: dict[str, int]) -> None:
    """A call without the attribute is counted under the nearest span that has it."""
    document = json.loads(view(file, "--by", by, "--json").stdout)

    assert {row["name"]: row["calls"] for row in document["rows"]} == expected
    assert document["total"]["cost_usd"] == 0.875


def test_the_top_rows_alone(file: Path) -> None:
    """With a limit the most expensive rows are shown; the last row counts all calls, and says how many are left out."""
    table = rows(view(file, "--by", "flow", "--top", 1))

    assert "search" in table
    assert "index" not in table
    assert table["all (1 more not shown)"][0] == "5"


def test_several_files_are_one(file: Path, tmp_path: Path) -> None:
    """The spans of several files are summed together."""
    other = write(tmp_path / "other.jsonl", call(20, 0, "plan", cost=1.0))

    document = json.loads(view(file, other, "--by", "step", "--json").stdout)
    assert document["total"]["calls"] == 6
    assert document["total"]["cost_usd"] == 1.875


def test_an_unknown_cost_is_not_zero(tmp_path: Path) -> None:
    """An unknown cost is `null` in JSON."""
    file = write(tmp_path / "unpriced.jsonl", call(1, 0, "plan"))

    row = json.loads(view(file, "--by", "step", "--json").stdout)["rows"][0]
    assert (row["cost_usd"], row["unpriced"]) == (None, 1)


def test_a_call_within_a_call_counts_once(tmp_path: Path) -> None:
    """Of a call that two instrumentations recorded, the outer span counts."""
    file = write(tmp_path / "double.jsonl", call(1, 0, "plan", cost=1.0), call(2, 1, "plan", cost=1.0))

    assert json.loads(view(file, "--by", "step", "--json").stdout)["total"]["calls"] == 1


@pytest.mark.parametrize("option", [("--top", "3"), ("--json",)])
def test_options_that_belong_to_a_table(file: Path, option: tuple[str, ...]) -> None:
    """A table's option without `--by` is rejected, and the message says what to add."""
    done = view(file, *option)

    assert (done.returncode, done.stdout) == (1, "")
    assert "add --by step" in done.stderr


class Page(HTMLParser):
    """The parts of a page that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.contents: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._inside in ("script", "style"):
            self.contents[self._inside] = self.contents.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def page_of(tmp_path: Path, *spans: dict[str, Any]) -> Page:
    """The page of these spans."""
    out = tmp_path / "page.html"
    done = view(write(tmp_path / "spans.jsonl", *spans), "--html", out)
    assert done.returncode == 0, done.stderr
    return Page(out.read_text(encoding="utf-8"))


def test_what_comes_from_strangers_is_text(tmp_path: Path) -> None:
    """Names, steps and errors make no element, and control and bidirectional characters are spelled out."""
    hostile = call(1, 0, HOSTILE, error__type=HOSTILE, status={"code": 2, "message": HOSTILE})
    page = page_of(tmp_path, {**hostile, "name": HOSTILE})

    assert [tag for tag, _ in page.tags].count("script") == 1
    assert any("<script>alert(1)</script>\"'&\\u202e\\u0007\\u2066" in text for text in page.texts)
    assert not {"\u202e", "\x07", "\u2066"} & set("".join(page.texts))
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.tags for name in attrs)


def test_the_policy_allows_the_pages_own_content_alone(tmp_path: Path) -> None:
    """The page allows only its own style sheet and script, by their hashes, and loads nothing."""
    page = page_of(tmp_path, call(1, 0, "plan", cost=0.5))

    policy = next(attrs["content"] or "" for _, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.contents[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not any({"src", "href"} & attrs.keys() for _, attrs in page.tags)


def test_attempts_and_waits_are_bars(tmp_path: Path) -> None:
    """A retried call shows each attempt, each wait, and its reason."""
    retry = {
        "name": "tracemind.retry",
        "timeUnixNano": str(10**18 + 2 * 10**6),
        "attributes": [
            attribute("tracemind.retry.attempt", 1),
            attribute("tracemind.retry.reason", "rate_limit"),
            attribute("tracemind.retry.delay_s", 0.003),
            attribute("http.response.status_code", 429),
        ],
    }
    page = page_of(tmp_path, call(0, 0, "plan", cost=0.5, events=[retry]))

    bars = [attrs["class"] for tag, attrs in page.tags if tag == "rect"]
    assert bars == ["attempt", "wait", "call"]
    assert "attempt 1 failed: rate_limit (429), waited 3 ms" in "".join(page.texts)


def test_a_page_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    """One line names the file and the reason."""
    done = view(file, "--html", tmp_path / "missing" / "page.html")

    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "No such file or directory; check the path" in done.stderr


def test_a_page_never_replaces_what_was_recorded(file: Path) -> None:
    """A page with the name of a file that is read, by whatever path, is not written."""
    recorded = file.read_bytes()
    done = view(file, "--html", file.parent / "." / ".." / file.parent.name / file.name)

    assert done.returncode == 1
    assert "is a file to read, and the page would replace it; name another file" in done.stderr
    assert file.read_bytes() == recorded


def test_a_table_or_a_page(file: Path, tmp_path: Path) -> None:
    """Both at once are rejected, so that no page is missing in silence."""
    done = view(file, "--by", "step", "--html", tmp_path / "page.html")

    assert done.returncode == 1
    assert "leave one out" in done.stderr
    assert not (tmp_path / "page.html").exists()

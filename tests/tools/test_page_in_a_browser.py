"""The page of `view --html` in a real browser: escaped, sortable, in light and dark, by keyboard, large."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.programs import clean_environment
from tests.servers.browser import browser
from tracemind_otel.cli.html_page import html_page
from tracemind_otel.cli.otlp_file import FileEvent, FileSpan, Scalar
from tracemind_otel.otel import semconv

pytestmark = pytest.mark.tools

READER = Path(__file__).with_name("page_reader.py")
MS = 1_000_000
LARGE = 10_000
HOSTILE = (
    "<script>window.injected = 1</script>",
    "<img src=x onerror='window.injected = 2'>",
    "\"'></title><script>window.injected = 3</script>",
    "\u202eevil\u2066 mark",
    "bell\x07 and escape\x1b[31m",
)


def span(number: int, parent: int | None = None, **fields: Any) -> FileSpan:
    values: dict[str, Any] = {"name": f"span {number}", "start_ns": number * MS, "end_ns": (number + 40) * MS}
    parent_id = "" if parent is None else f"{parent:016x}"
    return FileSpan(trace_id="a" * 32, span_id=f"{number:016x}", parent_id=parent_id, **(values | fields))


def call(number: int, parent: int, step: str, cost_usd: float, **fields: Any) -> FileSpan:
    attributes: dict[str, Scalar] = {
        semconv.GEN_AI_OPERATION_NAME: "chat",
        semconv.GEN_AI_REQUEST_MODEL: "m",
        semconv.TRACEMIND_STEP_ID: step,
        semconv.GEN_AI_USAGE_INPUT_TOKENS: 100,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 10,
        semconv.TRACEMIND_COST_USD: cost_usd,
    }
    return span(number, parent, name="chat m", attributes=attributes, **fields)


def a_page() -> list[FileSpan]:
    """A flow with three steps, one of them retried, one failed, with hostile names everywhere."""
    retry = FileEvent(
        name=semconv.RETRY_EVENT,
        time_ns=12 * MS,
        attributes={
            semconv.TRACEMIND_RETRY_ATTEMPT: 1,
            semconv.TRACEMIND_RETRY_REASON: HOSTILE[0],
            semconv.TRACEMIND_RETRY_DELAY_S: 0.01,
            semconv.HTTP_RESPONSE_STATUS_CODE: 429,
        },
    )
    return [
        span(0, name=HOSTILE[1], end_ns=100 * MS, service=HOSTILE[2]),
        call(1, 0, "cheap", 0.001),
        call(2, 0, "dear", 0.5, events=(retry,)),
        call(3, 0, HOSTILE[3], 0.02, is_error=True, status_message=HOSTILE[4]),
    ]


@dataclass(frozen=True)
class Read:
    """What the reader found, and where its screenshots are."""

    page: dict[str, Any]
    large: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def read(
    python: Path, tmp_path_factory: pytest.TempPathFactory, visibly: Callable[[], AbstractContextManager[None]]
) -> Read:
    """Both pages, opened once."""
    with visibly():
        programs = browser()
    if programs is None:
        pytest.skip("no browser: install chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    folder = tmp_path_factory.mktemp("pages")
    (folder / "page.html").write_text("".join(html_page(a_page(), title=HOSTILE[2])), encoding="utf-8")
    large = [span(0, end_ns=LARGE * MS), *(call(number, 0, f"step {number % 20}", 0.001) for number in range(1, LARGE))]
    (folder / "large.html").write_text("".join(html_page(large, title="large")), encoding="utf-8")
    done = subprocess.run(
        [python, READER, programs.program, programs.driver, folder],
        env=clean_environment(HOME=str(folder)),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Read(**json.loads(done.stdout), folder=folder)


def test_names_from_strangers_are_text(read: Read) -> None:
    """What looks like markup or a script is shown as it is; nothing of it ran, and the page's own script did."""
    assert read.page["injected"] == [None, 0]
    assert read.page["scripts"] == 1
    for hostile in HOSTILE[:3]:
        assert hostile in read.page["text"] + read.page["title"]
    assert "\\u202eevil\\u2066 mark" in read.page["text"]
    assert "bell\\u0007 and escape\\u001b[31m" in read.page["text"]


def test_the_page_needs_no_network_and_has_no_fault(read: Read) -> None:
    """Nothing is loaded beside the file, and the browser's console is empty: no error, no violation of the policy."""
    assert read.page["resources"] == []
    assert read.page["log"] == []


def test_attempts_and_waits_are_seen(read: Read) -> None:
    """A retried call is a bar for the failed attempt, one for the wait, and its reason and status in words."""
    assert read.page["bars"] == {"attempt": 1, "wait": 1}
    assert re.search(r"attempt 1 failed: .*\(429\), waited 10 ms", read.page["text"])


def test_the_table_is_sorted_by_keyboard(read: Read) -> None:
    """Tab reaches the heading of the cost, Enter and Space sort, and a screen reader is told how."""
    assert read.page["roles"] == ["table", "table"]
    assert read.page["focused"] == "Cost"
    dear, hostile, cheap = "dear", "\\u202eevil\\u2066 mark", "cheap"
    assert read.page["by_cost"] == [dear, hostile, cheap]
    assert read.page["sorted"] == ["none"] * 5 + ["descending"] + ["none"] * 4
    assert read.page["by_cost_again"] == [cheap, hostile, dear]


def test_what_is_below_a_span_can_be_folded(read: Read) -> None:
    """The arrow beside a span has a name and a state, and hides the rows below it."""
    assert read.page["folded"] == [True, False, False, False]
    assert read.page["toggle"] == ["Show or hide what is below", "false"]


def test_light_and_dark_are_both_readable(read: Read) -> None:
    """Each scheme has its own paper and ink, with the contrast that WCAG 2.2 asks of text (4.5 to 1)."""
    (light_paper, light_ink), (dark_paper, dark_ink) = read.page["light"], read.page["dark"]
    assert brightness(light_paper) > 0.8 > 0.1 > brightness(dark_paper)
    for paper, ink in ((light_paper, light_ink), (dark_paper, dark_ink)):
        low, high = sorted((brightness(paper), brightness(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5
    for scheme in ("light", "dark"):
        picture = (read.folder / f"{scheme}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
    assert (read.folder / "light.png").read_bytes() != (read.folder / "dark.png").read_bytes()


def brightness(colour: str) -> float:
    """The relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_ten_thousand_spans_open(read: Read) -> None:
    """The page of a long run is usable at once: within 3 s on a machine of its own, here with room for a busy one."""
    assert read.large["rows"] == LARGE
    assert read.large["opened_s"] < 12

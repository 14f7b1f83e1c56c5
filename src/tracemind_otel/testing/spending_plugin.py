"""What the plugin does where a marker or an option asks what the tests spend."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ..recording.port import listening
from .call_log import CallLog, SpanSpending, Spending, summed
from .cost_baseline import CostBaseline
from .cost_table import cost_table
from .spending_limit import MARKER, SpendingLimit

_SPENT = "tracemind_llm_spent"
"""The attribute of a test's report that carries what it spent, also from a worker of pytest-xdist."""


class SpendingPlugin:
    """Measures what each test spends on model calls, and holds it to its budget and its baseline."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._tolerance = float(config.getoption("--llm-cost-tolerance") or 0)
        self._updates = bool(config.getoption("--llm-cost-update"))
        self._baseline = _baseline_of(config, may_be_new=self._updates)
        self._log = CallLog()
        self._outside = [self._log.current]
        self._limits: dict[pytest.Item, SpendingLimit] = {}
        self._misused: dict[pytest.Item, str] = {}
        self._running: dict[pytest.Item, Spending] = {}
        self._failed: set[str] = set()
        self._spent: dict[str, list[SpanSpending]] = {}
        self._write_error: str | None = None
        self._listening = ExitStack()
        self._listening.enter_context(listening(self._log))

    def check_budgets(self, items: Sequence[pytest.Item]) -> None:
        """Read the markers.

        Raises:
            pytest.UsageError: an argument is unknown or has a value that is not allowed.
        """
        for item in items:
            markers = list(item.iter_markers(MARKER))
            if not markers:
                continue
            try:
                self._limits[item] = SpendingLimit.of_markers(markers)
            except ValueError as error:
                message = f"{item.nodeid}: {error}"
                if not self._is_worker:
                    raise pytest.UsageError(message) from None
                self._misused[item] = message  # pytest-xdist shows no error of a worker's collection

    # --- Which test a call belongs to ---

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Calls of the test's own fixtures are the test's."""
        self._running[item] = Spending(_stable_id(item))
        self._failed.discard(_stable_id(item))
        with self._log.adding_to(self._running[item]):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Calls of a fixture that several tests share belong to none of them: which one comes first may change."""
        if fixturedef.scope == "function":
            return (yield)
        with self._log.adding_to(self._shared(f"fixture {fixturedef.argname} [{fixturedef.scope}]")):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Judge the test once it has run."""
        with self._log.adding_to(self._running[item]):
            result = yield
        if problems := self._problems(item):
            pytest.fail("\n".join(problems), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        """Calls at the end of fixtures belong to no test: the last user of a shared one may change."""
        with self._log.adding_to(self._shared("end of fixtures")):
            return (yield)

    def _shared(self, name: str) -> Spending:
        found = next((each for each in self._outside if each.name == name), None)
        if found is None:
            found = Spending(name)
            self._outside.append(found)
        return found

    def _problems(self, item: pytest.Item) -> list[str]:
        spending = self._running[item]
        found = [self._misused[item]] if item in self._misused else []
        limit = self._limits.get(item)
        if limit is not None and (excess := limit.excess(spending.calls)):
            found += [f"{MARKER}: the model calls of this test went over its budget:", *excess]
        if self._baseline is None or self._updates:
            return found
        excess = self._baseline.excess(spending.name, spending.calls, self._tolerance)
        if excess:
            update = "If that is meant, record it with --llm-cost-update."
            found += [f"The model calls of this test went over its baseline in {self._baseline.path}:", *excess, update]
        return found

    # --- From the tests, and the workers of pytest-xdist, to the report ---

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give what was spent to the last report of the test."""
        report = yield
        if not report.passed:
            self._failed.add(_stable_id(item))
        if call.when == "teardown":
            setattr(report, _SPENT, self._drained(item))
        return report

    def _drained(self, item: pytest.Item) -> dict[str, Any]:
        spending = self._running.pop(item, Spending(_stable_id(item)))
        outside = [each for each in self._outside if each.calls]
        drained = {
            "test": spending.name,
            "passed": spending.name not in self._failed,
            "rows": _plain(spending),
            "outside": {each.name: _plain(each) for each in outside},
        }
        for each in outside:
            each.calls.clear()
        return drained

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what a test spent, here or in a worker."""
        spent: dict[str, Any] | None = getattr(report, _SPENT, None)
        if spent is None:
            return
        self._add(spent["test"], spent["rows"])
        for name, rows in spent["outside"].items():
            self._add(name, rows)
        if self._updates and spent["passed"] and self._baseline is not None:
            self._baseline.tests[spent["test"]] = [SpanSpending(**row) for row in spent["rows"]]

    def _add(self, name: str, rows: list[dict[str, Any]]) -> None:
        added = [SpanSpending(**row) for row in rows]
        if added:
            self._spent[name] = summed([*self._spent.get(name, []), *added])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the baseline, in the process that has all results."""
        for each in self._outside:
            self._add(each.name, _plain(each))
            each.calls.clear()
        is_all = not self._is_worker and not self._config.getoption("collectonly")
        if self._updates and self._baseline is not None and is_all:
            try:
                self._baseline.write()
            except OSError as error:
                self._write_error = f"{self._baseline.path} cannot be written: {error.strerror}"
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_unconfigure(self) -> None:
        """Listen to no more calls."""
        self._listening.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the report."""
        if self._config.getoption("--llm-cost-report"):
            terminalreporter.section("cost of model calls")
            for line in cost_table(self._spent):
                terminalreporter.write_line(line)
        if self._baseline is not None:
            for line in self._baseline_lines(self._baseline):
                terminalreporter.write_line(line)

    def _baseline_lines(self, baseline: CostBaseline) -> list[str]:
        if self._config.getoption("collectonly"):
            return []
        if self._write_error is not None:
            return [f"--llm-cost-update: {self._write_error}"]
        if self._updates:
            written = sum(map(bool, baseline.tests.values()))
            return [f"baseline of LLM costs: {written} tests written to {baseline.path}"]
        new = [name for name in self._spent if "::" in name and name not in baseline.tests]
        if not new:
            return []
        return [f"not in the baseline of LLM costs: {', '.join(sorted(new))}; record them with --llm-cost-update"]


def _baseline_of(config: pytest.Config, *, may_be_new: bool) -> CostBaseline | None:
    name: str | None = config.getoption("--llm-cost-baseline")
    if name is None:
        return None
    path = Path(config.invocation_params.dir, name)
    config.option.llm_cost_baseline = str(path)  # for the workers of pytest-xdist
    if may_be_new and not path.exists():
        return CostBaseline(path)
    try:
        return CostBaseline.read(path)
    except FileNotFoundError:
        raise pytest.UsageError(f"--llm-cost-baseline: there is no {path}; write it with --llm-cost-update") from None
    except OSError as error:
        raise pytest.UsageError(f"--llm-cost-baseline: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise pytest.UsageError(f"--llm-cost-baseline: {error}") from None


def _plain(spending: Spending) -> list[dict[str, Any]]:
    return [asdict(row) for row in spending.rows()]


def _stable_id(item: pytest.Item) -> str:
    """The id of a test, without the group that pytest-xdist appends to it."""
    group = item.get_closest_marker("xdist_group")
    name = None if group is None else group.kwargs.get("name") or next(iter(group.args), None)
    return item.nodeid if name is None else item.nodeid.removesuffix(f"@{name}")

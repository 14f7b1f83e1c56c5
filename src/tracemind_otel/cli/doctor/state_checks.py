"""Checks of the state in which processes share budgets."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Evidence
from .finding import Finding


def state_is_away(evidence: Evidence) -> Iterator[Finding]:
    """A state that cannot be asked: budgets deny calls, or do not hold."""
    state = evidence.state
    if state is not None and state.fault is not None:
        what = (
            f"the shared state at {state.where} cannot be asked: {state.fault}; its budgets deny every call, "
            "or limit nothing with on_state_away='allow'"
        )
        fix = "start the server, repair the file, or correct configure(state=...) or TRACEMIND_STATE"
        yield Finding("state-away", "error", what, fix)


def state_is_slow(evidence: Evidence) -> Iterator[Finding]:
    """A state that takes so long that calls will often not wait for it."""
    state = evidence.state
    if state is not None and state.fault is None and state.round_trip_s > state.timeout_s / 2:
        what = (
            f"the shared state at {state.where} answers in {state.round_trip_s * 1e3:,.0f} ms, "
            f"and a call waits for {state.timeout_s * 1e3:,.0f} ms"
        )
        yield Finding("state-slow", "warning", what, "use a state nearby, or add ?timeout=SECONDS to its URL")

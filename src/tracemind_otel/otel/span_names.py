"""How spans are named. The conventions are about to change these names, and they are made nowhere else.

A flow has its name wherever it is called from: neither what runs below it nor a flow around it changes it, so that a
function is one row in a dashboard. A nested flow is `invoke_workflow` too. The conventions count the calls of such ones
in each workflow around them (semantic-conventions-genai #523).
"""

from __future__ import annotations

from .sanitize import sanitized


def call_name(operation: str, model: str) -> str:
    """The name of a model call: `chat gpt-4o-mini`, or `chat` where nobody has named the model."""
    return sanitized(f"{operation} {model}" if model else operation)


def function_name(operation: str | None, name: str) -> str:
    """The name of a flow, agent or tool (`invoke_agent answer`), or of a step, which has no operation (`answer`)."""
    return sanitized(name if operation is None else f"{operation} {name}")


def attempt_name(number: int) -> str:
    """The name of one attempt of a call that was retried: `attempt 1`."""
    return f"attempt {number}"


def attempt_name_with_reason(number: int, reason: str) -> str:
    """The name of an attempt where only its name is seen: `attempt 1: timeout`."""
    return sanitized(f"{attempt_name(number)}: {reason}")

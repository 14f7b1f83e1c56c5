"""Templates replace `{{ name }}` and `{name}`, and interpret nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemind_otel.steps.ai_llm_call import apply_vars

CASES: list[tuple[str, dict[str, Any] | None, str]] = [
    ("Hello, {{name}}!", {"name": "Ada"}, "Hello, Ada!"),
    ("Hello, {{ name }}!", {"name": "Ada"}, "Hello, Ada!"),
    ("Hello, {{\n name\t}}!", {"name": "Ada"}, "Hello, Ada!"),
    ("Hello, {name}!", {"name": "Ada"}, "Hello, Ada!"),
    ("{a}{{b}}{a}", {"a": 1, "b": 2.5}, "12.51"),
    ("{missing} {{ missing }}", {"name": "Ada"}, "{missing} {{ missing }}"),
    ("{name}", None, "{name}"),
    ("{name}", {}, "{name}"),
    ("{x}", {"x": None}, "None"),
    ("{x}", {"x": ""}, ""),
    ('{"json": {"name": 1}}', {"name": "Ada"}, '{"json": {"name": 1}}'),
    ("{ name }", {"name": "Ada"}, "{ name }"),
    ("{name.__class__}", {"name": "Ada"}, "{name.__class__}"),
    ("{name!r} {name:>9} {name[0]}", {"name": "Ada"}, "{name!r} {name:>9} {name[0]}"),
    ("{{ 1 + 1 }} {% if name %}", {"name": "Ada"}, "{{ 1 + 1 }} {% if name %}"),
    ("{0} {}", {"0": "zero", "": "empty"}, "{0} {}"),
    ("%(name)s $name", {"name": "Ada"}, "%(name)s $name"),
    ("{{{name}}}", {"name": "Ada"}, "{Ada}"),
]


@pytest.mark.parametrize(("template", "vars", "expected"), CASES)
def test_substitution(template: str, vars: dict[str, Any] | None, expected: str) -> None:
    """Both spellings are replaced; unknown names, format specifications and expressions stay as they are."""
    assert apply_vars(template, vars) == expected


def test_values_are_not_looked_at_again() -> None:
    """A value with braces in it does not pull in another value: what a user typed stays plain text."""
    assert apply_vars("{user}", {"user": "{secret} {{ secret }}", "secret": "s3cr3t"}) == "{secret} {{ secret }}"


@given(value=st.text(), template_end=st.text(alphabet=st.characters(blacklist_characters="{}")))
def test_any_value_goes_in_as_it_is(value: str, template_end: str) -> None:
    """Every value is inserted unchanged, with its backslashes and group references."""
    assert apply_vars("{v}" + template_end, {"v": value}) == value + template_end


@given(template=st.text(), vars=st.dictionaries(st.text(), st.text()))
def test_no_template_raises(template: str, vars: dict[str, str]) -> None:
    """No template raises an error, whatever it contains."""
    assert isinstance(apply_vars(template, vars), str)

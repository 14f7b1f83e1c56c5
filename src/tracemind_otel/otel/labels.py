"""The attributes of metrics that the user names: of flows, of ids and of the step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from .._base.once import Once
from ..errors import ConfigError
from ..flows.correlation import NO_PROMPT, Correlation, Prompt, current_prompt
from ..flows.totals import FlowRun, LabelValue
from ..recording.port import StepStart
from . import semconv
from .attributes import FIELDS

log = logging.getLogger(__name__)

DISTINCT_VALUES = 1000
"""Values of one label that are told apart, by default."""
OTHER = "_other"
"""The value that stands for all further ones."""
STEP = "step"
"""The name by which the step is asked for; its label is `tracemind.step.id`."""

_OVER = Once()


class DistinctValues:
    """Bounds the values of each label, because each is a time series in the APM.

    Args:
        limit: values of one label that are told apart.
    """

    def __init__(self, limit: int = DISTINCT_VALUES) -> None:
        self._limit = limit
        self._seen: dict[str, set[LabelValue]] = {}

    def bounded(self, label: str, value: LabelValue) -> LabelValue:
        """The value, or `_other` where the label has too many already."""
        seen = self._seen.setdefault(label, set())
        if value in seen:
            return value
        if len(seen) < self._limit:
            seen.add(value)
            return value
        if _OVER.is_new(label):
            log.warning(
                "The metric attribute %s has more than %d values; further ones are recorded as %r. Name one of fewer "
                "values in metric_attributes, or raise metric_attribute_limit of configure()",
                label,
                self._limit,
                OTHER,
            )
        return OTHER


class MetricLabels:
    """The labels that the user named, and how they are found.

    Args:
        names: names of flow attributes, of ids (`user.id`, `session.id`, ...), of the prompt (`gen_ai.prompt.name`,
            `gen_ai.prompt.version`), or `step`.
        values: bounds the values.

    Raises:
        ConfigError: the names are not a list of strings.
    """

    def __init__(self, names: object, values: DistinctValues | None = None) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ConfigError(f"metric_attributes is {names!r}; it must be a list of names")
        for name in cast("Sequence[object]", names):
            if not isinstance(name, str) or not name or any(map(str.isspace, name)):
                raise ConfigError(f"metric_attributes has {name!r}; a name must be a string without spaces, not empty")
        self._sources = tuple(dict.fromkeys(cast("Sequence[str]", names)))
        self.names = tuple(semconv.TRACEMIND_STEP_ID if name == STEP else name for name in self._sources)
        self._values = values or DistinctValues()

    def values(
        self, flow: FlowRun | None, ids: Correlation, step_id: str | None, prompt: Prompt = NO_PROMPT
    ) -> tuple[LabelValue | None, ...]:
        """The value of each label, in the order of `names`; `None` where there is none."""
        return tuple(
            None if value is None else self._values.bounded(label, value)
            for label, value in zip(
                self.names, (_value(name, flow, ids, step_id, prompt) for name in self._sources), strict=True
            )
        )


def prompt_of(start: StepStart) -> Prompt:
    """The prompt of a call: the one that it names, else the one that the step around it names."""
    if start.prompt_name is None:
        return current_prompt()
    return Prompt(name=start.prompt_name, version=start.prompt_version)


def _value(name: str, flow: FlowRun | None, ids: Correlation, step_id: str | None, prompt: Prompt) -> LabelValue | None:
    if name == STEP:
        return step_id
    if name == semconv.GEN_AI_PROMPT_NAME:
        return prompt.name
    if name == semconv.GEN_AI_PROMPT_VERSION:
        return prompt.version
    field = FIELDS.get(name)
    own = None if field is None else getattr(ids, field)
    if own is not None or flow is None:
        return own
    return flow.label(name)


NO_LABELS = MetricLabels(())

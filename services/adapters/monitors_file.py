"""``monitors.toml`` of the feature repo: what is watched and how often it may be wrong. Everything has a default.

::

    false_alarms = "1 per week"       # of everything measured against a reference, for the whole model
    windows = ["6h", "1d", "7d"]      # compared with the model's reference
    ignore = []                       # features that are not watched one by one
    segment_by = ""                   # a feature such as a category: everything is watched within its values as well

    [limits]                          # "off" switches one off
    dead_letter_share = 0.01
    late_share = 0.05
    duplicate_share = 0.05
    null_share = 0.05                 # beyond the reference's own
    unseen_share = 0.05               # outside of the values the reference has
    freshness = "10m"                 # of online features: until what was scored can be read
    label_delay = "14d"               # off unless declared, as are the next three
    latency_p99 = "1s"
    events_per_hour = 100
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.core.drift.budget import Budget
from services.core.drift.declared import Limits, Monitors, parse_budget, parse_span_ms
from services.core.drift.plan import Plan
from services.errors import Misconfigured

FILE: Final = "monitors.toml"

_DEFAULT: Final = Monitors()
Off = Literal["off"]
Share = Annotated[float, Field(gt=0, le=1)]


def _span(value: Any) -> Any:
    return parse_span_ms(value) if isinstance(value, str) and value != "off" else value


Span = Annotated[int, BeforeValidator(_span)]


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dead_letter_share: Share | Off | None = _DEFAULT.limits.dead_letter_share
    late_share: Share | Off | None = _DEFAULT.limits.late_share
    duplicate_share: Share | Off | None = _DEFAULT.limits.duplicate_share
    null_share: Share | Off | None = _DEFAULT.limits.null_share
    unseen_share: Share | Off | None = _DEFAULT.limits.unseen_share
    freshness: Span | Off | None = _DEFAULT.limits.freshness_ms
    label_delay: Span | Off | None = _DEFAULT.limits.label_delay_ms
    latency_p99: Span | Off | None = _DEFAULT.limits.latency_p99_ms
    events_per_hour: Annotated[float, Field(gt=0)] | Off | None = _DEFAULT.limits.events_per_hour

    def value(self) -> Limits:
        given = {name: None if each == "off" else each for name, each in self}
        spans = {f"{name}_ms": given.pop(name) for name in ("freshness", "label_delay", "latency_p99")}
        return Limits(**given, **spans)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    false_alarms: Annotated[Budget, BeforeValidator(lambda each: parse_budget(each) if isinstance(each, str) else each)]
    windows: tuple[Span, ...] = _DEFAULT.windows_ms
    ignore: tuple[str, ...] = ()
    segment_by: str = ""
    limits: _Limits = _Limits()


def load_monitors(feature_repo: Path) -> Monitors:
    """Return what the feature repo declares; without a file, the defaults.

    Raises
    ------
    Misconfigured
        Naming the key that is wrong and what is allowed.
    """
    path = feature_repo / FILE
    if not path.is_file():
        return _DEFAULT
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found = _File(**{"false_alarms": _DEFAULT.budget, **raw})
        Plan(windows_ms=found.windows)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise Misconfigured(f"{path} is wrong:\n  " + "\n  ".join(lines)) from error
    except ValueError as error:
        raise Misconfigured(f"{path} is wrong: {error}") from error
    return Monitors(found.false_alarms, found.windows, found.ignore, found.segment_by, limits=found.limits.value())

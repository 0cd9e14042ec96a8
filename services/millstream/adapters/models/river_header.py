"""The header of an online model's snapshot, and its validation against the declared model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from millstream.core.text import few
from millstream.errors import Refused


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a snapshot.

    Parameters
    ----------
    model : str
        Name under which the online model is known.
    examples : int
        How many examples it has learnt: its version, rising by one with each example.
    pipeline : str
        Digest of the declared pipeline.
    features : tuple of str
        What the model reads, in declared order.
    segment : str or None
        Column whose values have a model each.
    max_segments : int
        Most values that have one.
    libraries : mapping of str to str
        Versions that the state was made by.
    offsets : mapping of str to int
        By source, the offset of the next example.
    metrics : mapping of str to JSON value
        State of the prequential metrics.
    """

    model: str
    examples: int
    pipeline: str
    features: tuple[str, ...]
    segment: str | None
    max_segments: int
    libraries: Mapping[str, str]
    offsets: Mapping[str, int]
    metrics: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Return the header as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode()

    @staticmethod
    def from_json(text: bytes) -> Header:
        """Read a header.

        Raises
        ------
        Refused
            If it is none, such as that of another version of Millstream.
        """
        try:
            raw = json.loads(text)
            return Header(**{**raw, "features": tuple(raw["features"])})
        except (ValueError, TypeError, LookupError) as error:
            raise Refused(
                f"online model snapshot is refused: its header cannot be read ({error}); run the same version of "
                "Millstream for the learner and the scorers"
            ) from error

    def mismatches(self, wanted: Header) -> list[str]:
        """Return what does not fit and what to do; ``examples``, ``offsets`` and ``metrics`` do not matter."""
        again = "restart the learner on this declaration and it learns again from the retained examples"
        found = []
        if self.model != wanted.model:
            found.append(f"it is of online model {self.model!r}, wanted is {wanted.model!r}; check the topic")
        if self.features != wanted.features:
            more = few(sorted(set(self.features) - set(wanted.features))) or "none"
            less = few(sorted(set(wanted.features) - set(self.features))) or "none"
            found.append(f"another feature set (only in the snapshot: {more}; only declared: {less}); {again}")
        if self.pipeline != wanted.pipeline:
            found.append(f"another declared pipeline; put the declaration back, or {again}")
        if (self.segment, self.max_segments) != (wanted.segment, wanted.max_segments):
            found.append(
                f"it has a model for each of {self.max_segments} values of {self.segment}, declared are "
                f"{wanted.max_segments} of {wanted.segment}; put the settings back, or {again}"
            )
        for name, version in wanted.libraries.items():
            if self.libraries.get(name) != version:
                found.append(
                    f"made by {name} {self.libraries.get(name)}, here is {version}, whose state may mean something "
                    f"else; install the former, or {again}"
                )
        return found

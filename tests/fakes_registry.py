"""A model registry in a dict."""

from __future__ import annotations

from collections.abc import Mapping

from millstream.core.models.manifest import sha256
from millstream.errors import Refused
from millstream.ports import ModelVersion


class FakeRegistry:
    def __init__(self) -> None:
        self._models: dict[str, list[tuple[ModelVersion, dict[str, float]]]] = {}
        self._champions: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def register(self, name: str, manifest: str, body: str, metrics: Mapping[str, float]) -> ModelVersion:
        kept = self._models.setdefault(name, [])
        made = ModelVersion(name, len(kept) + 1, manifest, body, sha256(body))
        kept.append((made, dict(metrics)))
        return made

    def load(self, name: str, version: int | None = None) -> ModelVersion | None:
        number = self._champions.get(name) if version is None else version
        kept = self._models.get(name, [])
        return kept[number - 1][0] if number is not None and 1 <= number <= len(kept) else None

    def promote(self, name: str, version: int) -> ModelVersion:
        found = self.load(name, version)
        if found is None:
            raise Refused(f"model {name!r} has no version {version}")
        present = self._champions.get(name)
        if present is not None and present != version:
            self._previous[name] = present
        self._champions[name] = version
        return found

    def previous(self, name: str) -> int | None:
        return self._previous.get(name)

    def versions(self, name: str) -> list[tuple[int, Mapping[str, float], bool]]:
        champion = self._champions.get(name)
        return [(each.version, metrics, each.version == champion) for each, metrics in self._models.get(name, [])]

"""Whether the promoted model fits the feature repo, before a worker has to refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.adapters.kafka.promotions import latest
from millstream.adapters.kafka.topics import partition_counts
from millstream.core.declaration import Declaration
from millstream.core.models.manifest import define
from millstream.errors import Refused
from millstream.stages.score.scorer import Champion
from millstream.topology import MODELS


@dataclass(frozen=True, slots=True)
class ChampionStatus:
    """What answers, in words; ``refused`` is why the champion does not, None if it does or there is none."""

    found: str
    refused: str | None = None


def champion_fit(kafka: Mapping[str, str], declaration: Declaration) -> ChampionStatus:
    """Load the champion as a worker would and return what would answer.

    Raises
    ------
    Retry, Stop
        Kafka cannot be read.
    """
    name = declaration.service.name
    present = latest(kafka, name) if partition_counts(kafka, [MODELS]) else None
    if present is None:
        return ChampionStatus(f"no model {name!r} is promoted yet: the declared rule answers")
    try:
        Champion.load(present, declaration.service, definitions=define(declaration))
    except Refused as error:
        return ChampionStatus("the declared rule answers", str(error))
    return ChampionStatus(f"model {name!r} version {present.version} answers")

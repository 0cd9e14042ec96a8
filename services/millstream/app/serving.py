"""What a scoring stage serves: the promoted champion and the online model's newest snapshot, swapped as they come."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.telemetry.metrics import Telemetry
from millstream.app.assembly import Assembly
from millstream.core.models.manifest import define
from millstream.errors import Misconfigured, Refused
from millstream.ports import ModelVersion
from millstream.stages.score.policy import CHAMPION
from millstream.stages.score.scorer import Champion
from millstream.stages.score.step import Score

logger = logging.getLogger(__name__)


def serve_models(
    assembly: Assembly, endpoints: Endpoints, score: Score, telemetry: Telemetry, stack: contextlib.ExitStack
) -> Callable[[], None]:
    """Load what is there now; return what swaps in what came since, to be called between two micro-batches.

    Raises
    ------
    Misconfigured
        The online model is to answer and there is none, or its declaration is wrong.
    Retry
        Kafka cannot be read.
    """
    promotions = _promotions(assembly, endpoints, score, stack)
    if not assembly.declares_online_model:
        if assembly.settings.answer != CHAMPION:
            raise Misconfigured(
                f"MILLSTREAM_ANSWER={assembly.settings.answer}, but no online model is declared: "
                f"{assembly.online_model_file} is not there, or this repo's events are labels"
            )
        return promotions
    snapshots = _snapshots(assembly, endpoints, score, telemetry, stack)

    def before_batch() -> None:
        promotions()
        snapshots()

    return before_batch


def _promotions(
    assembly: Assembly, endpoints: Endpoints, score: Score, stack: contextlib.ExitStack
) -> Callable[[], None]:
    from millstream.adapters.kafka.promotions import follow

    service = assembly.declaration.service
    follower = follow(endpoints.kafka, service.name)
    stack.callback(follower.close)
    follower.wait()
    offered: ModelVersion | None = None

    def before_batch() -> None:
        nonlocal offered
        promoted = follower.take()
        if promoted is None or promoted == offered:  # a refusal is not worth repeating
            return
        offered = promoted
        try:
            score.swap(Champion.load(promoted, service, assembly.settings.score_threads, define(assembly.declaration)))
            logger.info("model %s version %s is the champion from now on", promoted.name, promoted.version)
        except Refused as error:
            serving = f"version {score.champion.version}" if score.champion is not None else "the declared rule"
            logger.error("%s; %s goes on", error, serving)

    before_batch()
    if offered is None:
        logger.warning("no model %s is promoted yet: the declared rule answers", service.name)
    return before_batch


def _snapshots(
    assembly: Assembly, endpoints: Endpoints, score: Score, telemetry: Telemetry, stack: contextlib.ExitStack
) -> Callable[[], None]:
    from millstream.adapters.models.online_snapshots import follow

    declared = assembly.online_model()
    telemetry.gauge("millstream_online_version", 0, model=declared.name)
    version, told = 0, ""

    # Both are called in the follower's thread. One line at first and after a refusal; there is a snapshot every few
    # seconds.
    def accepted(scorer: OnlineScorer) -> None:
        nonlocal version, told
        if told or not version:
            role = assembly.policy.online_role
            logger.info("online model %s, snapshot %s is %s from now on", scorer.name, scorer.version, role)
        version, told = scorer.version, ""
        telemetry.gauge("millstream_online_version", version, model=scorer.name)

    def refused(place: str, reason: str) -> None:
        nonlocal told
        telemetry.count("millstream_online_refused_total", model=declared.name)
        if reason != told:
            told = reason
            logger.error(
                "%s: %s; %s", place, reason, f"snapshot {version} goes on" if version else "none was in service yet"
            )

    follower = follow(endpoints.kafka, declared, assembly.snapshot_key(), accepted, refused)
    stack.callback(follower.close)
    follower.wait()

    def before_batch() -> None:
        scorer = follower.take()
        if scorer is not None:
            score.swap_online(scorer)

    before_batch()
    return before_batch

"""The champion model, and the answers to a micro-batch from champion, online model and rule."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.adapters.models.river_pipelines import CHAMPION_SCORE
from millstream.core.batch import Array, Batch, Mask
from millstream.core.declaration import Service
from millstream.core.models.manifest import Manifest, ManifestError, mismatches, sha256
from millstream.core.models.model_text import OBJECTIVE, objective
from millstream.core.text import few
from millstream.errors import Refused
from millstream.ports import ModelVersion
from millstream.stages.score.baseline import Baseline
from millstream.stages.score.online import Online
from millstream.stages.score.policy import BASELINE, CHAMPION, ONLINE, SHADOW, AnswerPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Champion:
    """A model that is loaded, checked and ready to answer."""

    name: str
    version: int
    manifest: Manifest
    model: TextModel

    @staticmethod
    def load(
        offered: ModelVersion, service: Service, threads: int = 1, definitions: Mapping[str, str] | None = None
    ) -> Champion:
        """Check a model against the running feature service and load it.

        Parameters
        ----------
        offered : ModelVersion
            As it came from the registry or a promotion event.
        service : Service
            What the running feature repo declares.
        threads : int
            LightGBM threads per prediction, >= 1.
        definitions : mapping of str to str, optional
            `manifest.define` of the running feature repo, to notice features whose meaning changed.

        Raises
        ------
        Refused
            Saying what does not fit: digest, manifest, objective, service, features, dtypes, model text.
        """
        title = f"model {offered.name!r} version {offered.version}"
        try:
            manifest = Manifest.from_json(offered.manifest)
        except ManifestError as error:
            raise Refused(f"{title} is refused: {error}") from error
        digest = sha256(offered.body)
        found = [] if digest == offered.sha256 else [f"its body has sha256 {digest}, announced was {offered.sha256}"]
        if digest != manifest.body_sha256:
            found.append(f"its body has sha256 {digest}, its manifest has {manifest.body_sha256}")
        trained_for = objective(offered.body)
        if offered.body.startswith("tree\n") and trained_for != OBJECTIVE:
            found.append(
                f"its objective is {trained_for or 'not stated'}, and scores are probabilities of an event with two "
                f"outcomes: allowed is {OBJECTIVE}"
            )
        found += mismatches(manifest, service, definitions)
        if found:
            raise Refused(f"{title} is refused: {'; '.join(found)}. Train it again with `millstream train`")
        try:
            model = TextModel(offered.body, threads)
        except Refused as error:
            raise Refused(f"{title} is refused: {error}") from error
        declared = {name for name, _ in manifest.features}
        if set(model.features) != declared:
            only = few(sorted(set(model.features) - declared)) or "none"
            missing = few(sorted(declared - set(model.features))) or "none"
            raise Refused(
                f"{title} is refused: its body and its manifest name different features (only in the body: {only}; "
                f"only in the manifest: {missing})"
            )
        return Champion(offered.name, offered.version, manifest, model)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Return the model's score of each row, in [0, 1]; NaN where what the model gives is no probability.

        Features are found by name, nulls pass as missing.

        Raises
        ------
        Refused
            If a feature is not among the columns or not a number.
        """
        columns = np.empty((len(self.model.features), batch.length), dtype=np.float64)
        for row, name in zip(columns, self.model.features, strict=True):
            try:
                row[:] = batch.as_floats(name)
            except KeyError as error:
                raise Refused(f"feature {name!r} is not in the batch") from error
            except (TypeError, ValueError) as error:
                raise Refused(f"feature {name!r} is not a number: {error}") from error
        return probabilities(self.model.predict(columns))


@dataclass(frozen=True, slots=True)
class Answer:
    """The answers to a micro-batch.

    Parameters
    ----------
    columns : dict
        Each of shape (n,). The answer: ``score`` float64 in [0, 1]; ``arm`` ("champion", "online", "blend" or
        "baseline"), ``model`` (name; "baseline") and ``decision``, objects of str; ``model_version`` int64, 0 for the
        baseline. Scores by model: ``champion_score`` and ``online_score`` float64, ``champion_version`` and
        ``online_version`` int64.
    nulls : dict
        Where a model's score or version is null.
    counts : mapping of str to int
        As `OnlineAnswer.counts`.
    """

    columns: dict[str, Array]
    nulls: dict[str, Mask]
    counts: Mapping[str, int]


class Scorer:
    """Answers micro-batches by a policy, and with the declared rule while there is no champion or when it fails.

    Parameters
    ----------
    service : Service
        Its baseline, threshold, and tags ``decision_above`` and ``decision_below`` (default "positive", "negative").
    online : Online, optional
        The online model; default: there is none.
    policy : AnswerPolicy
        Whose score is the answer.

    Attributes
    ----------
    champion : Champion or None
        Replace it between two micro-batches to swap models.
    online : Online
    failures : int
        Micro-batches with events on which the champion failed and the rule answered.

    Raises
    ------
    Misconfigured
        If the baseline is not a valid expression.
    """

    def __init__(
        self,
        service: Service,
        champion: Champion | None = None,
        online: Online | None = None,
        policy: AnswerPolicy = SHADOW,
    ) -> None:
        self.champion = champion
        self.online = Online() if online is None else online
        self.failures = 0
        self.baseline = Baseline(service)
        self._policy = policy
        self._threshold = service.threshold
        self._decisions = np.array(
            [service.tags.get("decision_below", "negative"), service.tags.get("decision_above", "positive")],
            dtype=object,
        )

    def score(self, batch: Batch) -> Answer:
        """Return the answer to each row, and each model's score."""
        champion, champions = self.champion, self._champion_scores(batch)
        present = ~np.isnan(champions)
        opinion = self.online.score(batch.with_columns({CHAMPION_SCORE: champions}, {CHAMPION_SCORE: ~present}))
        threshold = np.full(batch.length, self._threshold, dtype=np.float64)
        models, versions = np.full(batch.length, BASELINE, dtype=object), np.zeros(batch.length, dtype=np.int64)
        arms, given = np.full(batch.length, BASELINE, dtype=object), champions
        if champion is not None:
            models[present], versions[present], arms[present] = champion.name, champion.version, CHAMPION
            if champion.manifest.threshold is not None:
                threshold[present] = champion.manifest.threshold
        if not present.all() or not batch.length:
            given = champions.copy()
            given[~present] = self.baseline.score(batch.take(~present) if present.any() else batch)
        scores, otherwise = self._policy.choose(given, present, opinion.scores)
        arms[otherwise] = self._policy.answer
        if self._policy.answer == ONLINE:
            models[otherwise], versions[otherwise] = self.online.name, opinion.version or 0
        columns: dict[str, Array] = {
            "score": scores,
            "arm": arms,
            "model": models,
            "model_version": versions,
            "decision": self._decisions[(scores >= threshold).astype(np.intp)],
            "threshold": threshold,
            CHAMPION_SCORE: champions,
            "champion_version": np.full(batch.length, 0 if champion is None else champion.version),
            "online_score": opinion.scores,
            "online_version": np.full(batch.length, opinion.version or 0),
        }
        nulls = {
            CHAMPION_SCORE: ~present,
            "champion_version": np.full(batch.length, champion is None),
            "online_score": np.isnan(opinion.scores),
            "online_version": np.full(batch.length, opinion.version is None),
        }
        return Answer(columns, nulls, opinion.counts)

    def _champion_scores(self, batch: Batch) -> NDArray[np.float64]:
        """Return the champion's scores; NaN while there is no champion and where it fails."""
        nothing = np.full(batch.length, np.nan)
        champion = self.champion
        if champion is None:
            return nothing
        try:
            scores = champion.predict(batch)
        except Refused as error:
            self._failed(champion, batch.length, str(error))
            return nothing
        failed = int(np.count_nonzero(np.isnan(scores)))
        if failed:
            self._failed(champion, failed, "its score is no probability from 0 to 1")
        return scores

    def _failed(self, champion: Champion, events: int, problem: str) -> None:
        self.failures += 1
        logger.error(
            "model %r version %s failed on %s events, which the declared rule answers: %s",
            champion.name,
            champion.version,
            events,
            problem,
        )


def probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores with NaN in place of what is no probability: NaN, infinities and all outside of [0, 1]."""
    good = (scores >= 0) & (scores <= 1)
    return scores if good.all() else np.where(good, scores, np.nan)

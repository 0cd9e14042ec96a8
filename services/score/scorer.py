"""The champion model, and the answer to a micro-batch with it, beside it or without it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.adapters.lightgbm_model import TextModel
from services.adapters.river_pipelines import CHAMPION_SCORE
from services.core.batch import Array, Batch, Mask
from services.core.declaration import Service
from services.core.manifest import Manifest, ManifestError, mismatches, sha256
from services.errors import Refused
from services.ports import ModelVersion
from services.score.baseline import Baseline
from services.score.online import Online
from services.score.policy import BASELINE, CHAMPION, ONLINE, SHADOW, AnswerPolicy

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
            `services.core.manifest.define` of the running feature repo, to notice features that changed their meaning.

        Raises
        ------
        Refused
            Naming everything that does not fit: digest, manifest, service, features, dtypes, model text.
        """
        title = f"model {offered.name!r} version {offered.version}"
        try:
            manifest = Manifest.from_json(offered.manifest)
        except ManifestError as error:
            raise Refused(f"{title} is refused: {error}") from error
        digest = sha256(offered.body)
        found = [] if digest == offered.sha256 else [f"its body has sha256 {digest}, announced was {offered.sha256}"]
        if digest != manifest.body_sha256:
            found.append(f"its body has sha256 {digest}, its manifest says {manifest.body_sha256}")
        found += mismatches(manifest, service, definitions)
        if found:
            raise Refused(f"{title} is refused: {'; '.join(found)}. Train it anew with `millstream train`")
        try:
            model = TextModel(offered.body, threads)
        except Refused as error:
            raise Refused(f"{title} is refused: {error}") from error
        if set(model.features) != {name for name, _ in manifest.features}:
            raise Refused(
                f"{title} is refused: its body reads {', '.join(model.features)}, its manifest says otherwise"
            )
        return Champion(offered.name, offered.version, manifest, model)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Return the model's score of each row; features are found by name, nulls pass as missing.

        Raises
        ------
        Refused
            If a feature is not among the columns or not a number, or a prediction is not finite.
        """
        columns = np.empty((len(self.model.features), batch.length), dtype=np.float64)
        for row, name in zip(columns, self.model.features, strict=True):
            try:
                row[:] = batch.as_floats(name)
            except KeyError as error:
                raise Refused(f"feature {name!r} is not in the batch") from error
            except (TypeError, ValueError) as error:
                raise Refused(f"feature {name!r} is not a number: {error}") from error
        scores = self.model.predict(columns)
        if not np.isfinite(scores).all():
            raise Refused("a prediction is not a finite number")
        return scores


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of each row of a micro-batch.

    Parameters
    ----------
    columns : dict
        Each of shape (n,). The answer: ``score`` float64 in [0, 1]; ``arm`` ("champion", "online", "blend" or
        "baseline"), ``model`` (name; "baseline") and ``decision``, objects of str; ``model_version`` int64, 0 for the
        baseline. What each model said: ``champion_score`` and ``online_score`` float64, ``champion_version`` and
        ``online_version`` int64.
    nulls : dict
        Where what a model said, or its version, is null.
    counts : mapping of str to int
        As `Opinion.counts`.
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
        Micro-batches on which the champion failed and the rule answered.

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
        """Return the answer to each row, and what each contender said."""
        champion, said = self.champion, self._ask_champion(batch)
        present = np.full(batch.length, said is not None)
        champions = np.full(batch.length, np.nan) if said is None else said
        opinion = self.online.score(batch.with_columns({CHAMPION_SCORE: champions}, {CHAMPION_SCORE: ~present}))
        threshold, model, version = self._threshold, BASELINE, 0
        if champion is not None and said is not None:
            threshold = champion.manifest.threshold if champion.manifest.threshold is not None else threshold
            model, version = champion.name, champion.version
        given, arm = (self.baseline.score(batch), BASELINE) if said is None else (said, CHAMPION)
        scores, otherwise = self._policy.choose(given, arm, opinion.scores)
        arms = np.full(batch.length, arm, dtype=object)
        arms[otherwise] = self._policy.answer
        models = np.full(batch.length, model, dtype=object)
        versions = np.full(batch.length, version)
        if self._policy.answer == ONLINE:
            models[otherwise], versions[otherwise] = self.online.name, opinion.version or 0
        columns: dict[str, Array] = {
            "score": scores,
            "arm": arms,
            "model": models,
            "model_version": versions,
            "decision": self._decisions[(scores >= threshold).astype(np.intp)],
            "threshold": np.full(batch.length, threshold, dtype=np.float64),
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

    def _ask_champion(self, batch: Batch) -> NDArray[np.float64] | None:
        """Return the champion's scores, None while there is no champion and when it fails."""
        champion = self.champion
        if champion is None:
            return None
        try:
            return champion.predict(batch)
        except Refused as error:
            self.failures += 1
            logger.error(
                "model %r version %s failed on %s events, which are answered without it: %s",
                champion.name,
                champion.version,
                batch.length,
                error,
            )
            return None

"""The champion model, and the answer to a micro-batch with it or without."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.adapters.lightgbm_model import TextModel
from services.core.batch import Array, Batch
from services.core.declaration import Service
from services.core.manifest import Manifest, ManifestError, mismatches, sha256
from services.errors import Refused
from services.ports import ModelVersion
from services.score.baseline import Baseline

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


class Scorer:
    """Answers micro-batches: with the champion, or with the declared rule while there is none or when it fails.

    Parameters
    ----------
    service : Service
        Its baseline, threshold, and tags ``decision_above`` and ``decision_below`` (default "positive", "negative").

    Attributes
    ----------
    champion : Champion or None
        Replace it between two micro-batches to swap models.
    failures : int
        Micro-batches on which the champion failed and the rule answered.

    Raises
    ------
    Misconfigured
        If the baseline is not a valid expression.
    """

    def __init__(self, service: Service, champion: Champion | None = None) -> None:
        self.champion = champion
        self.failures = 0
        self.baseline = Baseline(service)
        self._threshold = service.threshold
        self._decisions = np.array(
            [service.tags.get("decision_below", "negative"), service.tags.get("decision_above", "positive")],
            dtype=object,
        )

    def score(self, batch: Batch) -> dict[str, Array]:
        """Return the answer to each row as columns, each of shape (batch.length,).

        Returns
        -------
        dict
            ``score`` float64 in [0, 1]; ``arm`` ("champion" or "baseline"), ``model`` (name; "baseline") and
            ``decision``, objects of str; ``model_version`` int64, 0 for the baseline.
        """
        champion = self.champion
        if champion is not None:
            try:
                scores = champion.predict(batch)
            except Refused as error:
                self.failures += 1
                logger.error(
                    "model %r version %s failed, the baseline answers for %s events: %s",
                    champion.name,
                    champion.version,
                    batch.length,
                    error,
                )
            else:
                threshold = champion.manifest.threshold
                threshold = self._threshold if threshold is None else threshold
                return self._answer(scores, threshold, "champion", champion.name, champion.version)
        return self._answer(self.baseline.score(batch), self._threshold, "baseline", "baseline", 0)

    def _answer(
        self, scores: NDArray[np.float64], threshold: float, arm: str, model: str, version: int
    ) -> dict[str, Array]:
        count = len(scores)
        return {
            "score": scores,
            "arm": np.full(count, arm, dtype=object),
            "model": np.full(count, model, dtype=object),
            "model_version": np.full(count, version, dtype=np.int64),
            "decision": self._decisions[(scores >= threshold).astype(np.intp)],
        }

"""References of promoted model versions, from the `models` topic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from millstream.core.batch import Batch
from millstream.core.drift.model_reference import ModelReference
from millstream.core.models.manifest import Manifest, ManifestError
from millstream.runtime.log.protocol import LogReader
from millstream.topology import MODELS

logger = logging.getLogger(__name__)


class References:
    """What each version of one model is measured against.

    Parameters
    ----------
    model : str
    decode : callable
        Values of the `models` topic to rows; what cannot be read is left out.
    """

    def __init__(self, model: str, decode: Callable[[Sequence[bytes | None]], Batch]) -> None:
        self._model = model
        self._decode = decode
        self._log: LogReader | None = None
        self._known: dict[int, ModelReference | None] = {}

    def open(self, log: LogReader) -> None:
        """Read from this log when a version is asked for."""
        self._log = log

    def __call__(self, version: int) -> ModelReference | None:
        """Return the reference of a version; None if it has none. A version that scored events was promoted before.

        Raises
        ------
        Retry, Stop
            The topic cannot be read.
        """
        if version not in self._known and self._log is not None:
            self._read(self._log)
            if self._known.setdefault(version, None) is None:
                logger.warning(
                    "model %s version %s brings no reference, so its events are not monitored: train it again",
                    self._model,
                    version,
                )
        return self._known.get(version)

    def _read(self, log: LogReader) -> None:
        for records in log.read(MODELS, 0, 0, None):
            batch = self._decode(records.values)
            for row in range(batch.length):
                version = int(batch.columns["version"][row])
                if batch.columns["name"][row] != self._model or self._known.get(version) is not None:
                    continue
                try:
                    self._known[version] = Manifest.from_json(batch.columns["manifest"][row]).reference
                except ManifestError as error:
                    logger.error("model %s version %s: %s", self._model, version, error)
                    self._known[version] = None

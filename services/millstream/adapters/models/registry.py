"""Trained models in MLflow: a run and a registered version each, the alias ``champion`` on the one that serves.

MLflow is imported and its tables are made on first use; both take seconds.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from millstream.adapters.reports.importance_plot import gains, importance_png
from millstream.core.models.manifest import Manifest, ManifestError, sha256
from millstream.errors import Refused, Retry
from millstream.ports import ModelVersion
from millstream.settings import Settings

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
_FOLDER: Final = "model"
_BODY: Final = "model.txt"
_MANIFEST: Final = "manifest.json"
_PLOT: Final = "importance.png"
# With these MLflow does not report usage or its migrations, and gives a dead server up within half a minute; it reads
# them when imported. The operator's own settings win.
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_ABSENT: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the second: an alias that is not set


class MlflowRegistry:
    """A `millstream.ports.ModelRegistry` on any MLflow tracking server or database.

    Parameters
    ----------
    uri : str
        MLflow tracking URI.
    artifacts : Path or None
        Where a database keeps model files; None where a server decides.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        self._uri = uri
        self._artifacts = artifacts

    def register(self, name: str, manifest: str, body: str, metrics: Mapping[str, float]) -> ModelVersion:
        """Store a run with parameters, metrics, model text, manifest and importance plot, and a version of it.

        Raises
        ------
        Retry
            MLflow cannot be reached.
        """
        with self._asking():
            from mlflow.entities import Metric, Param

            run = self._client.create_run(self._experiment(name), run_name=name)
            run_id = run.info.run_id
            params = [Param(key, str(value)) for key, value in _params(manifest).items()]
            values = [Metric(key, value, run.info.start_time, 0) for key, value in metrics.items()]
            self._client.log_batch(run_id, metrics=values, params=params)
            self._client.log_text(run_id, body, f"{_FOLDER}/{_BODY}")
            self._client.log_text(run_id, manifest, f"{_FOLDER}/{_MANIFEST}")
            found = gains(body)
            if found:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / _PLOT
                    path.write_bytes(importance_png(found, name))
                    self._client.log_artifact(run_id, str(path), _FOLDER)
            self._client.set_terminated(run_id)
            if self._model(name) is None:
                self._client.create_registered_model(name)
            made = self._client.create_model_version(
                name, f"runs:/{run_id}/{_FOLDER}", run_id, tags={"sha256": sha256(body)}
            )
        return ModelVersion(name, int(made.version), manifest, body, sha256(body))

    def load(self, name: str, version: int | None = None) -> ModelVersion | None:
        """Return a version, or the champion; None when there is none.

        Raises
        ------
        Retry
            MLflow cannot be reached.
        Refused
            Its files are not what was registered.
        """
        number = self._alias(name, CHAMPION) if version is None else version
        if number is None:
            return None
        with self._asking():
            from mlflow.artifacts import download_artifacts

            found = self._absent_as_none(self._client.get_model_version, name, str(number))
            if found is None:
                return None
            with tempfile.TemporaryDirectory() as folder:
                path = Path(
                    download_artifacts(
                        run_id=found.run_id, artifact_path=_FOLDER, dst_path=folder, tracking_uri=self._uri
                    )
                )
                body, manifest = ((path / file).read_bytes().decode() for file in (_BODY, _MANIFEST))
        digest = found.tags.get("sha256")
        if digest != sha256(body):
            raise Refused(f"model {name!r} version {number}: its file is not the one registered (sha256 {digest})")
        return ModelVersion(name, number, manifest, body, digest)

    def promote(self, name: str, version: int) -> ModelVersion:
        """Make this version champion, and remember the one it replaces.

        Raises
        ------
        Refused
            If there is no such version, or its files are not what was registered.
        Retry
            MLflow cannot be reached.
        """
        found = self.load(name, version)
        if found is None:
            raise Refused(f"model {name!r} has no version {version}; see `millstream models list`")
        present = self._alias(name, CHAMPION)
        with self._asking():
            if present is not None and present != version:
                self._client.set_registered_model_alias(name, PREVIOUS, str(present))
            self._client.set_registered_model_alias(name, CHAMPION, str(version))
        return found

    def previous(self, name: str) -> int | None:
        """Return the version that was champion before the present one; None when there was none."""
        return self._alias(name, PREVIOUS)

    def versions(self, name: str) -> list[tuple[int, Mapping[str, float], bool]]:
        """Return (version, metrics, is champion), oldest first.

        Raises
        ------
        Retry
            MLflow cannot be reached.
        """
        champion = self._alias(name, CHAMPION)
        rows = []
        with self._asking():
            token = None
            while True:
                quote = '"' if "'" in name else "'"
                page = self._client.search_model_versions(f"name={quote}{name}{quote}", page_token=token)
                for each in page:
                    metrics = dict(self._client.get_run(each.run_id).data.metrics)
                    rows.append((int(each.version), metrics, int(each.version) == champion))
                token = page.token
                if not token:
                    return sorted(rows)

    @cached_property
    def _client(self) -> Any:
        for key, value in _ENVIRONMENT.items():  # before the first import of MLflow, so nothing imports it earlier
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        return MlflowClient(self._uri, self._uri)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A database would put files into the working directory.
        location = None if self._artifacts is None else self._artifacts.as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _model(self, name: str) -> Any:
        return self._absent_as_none(self._client.get_registered_model, name)

    def _alias(self, name: str, alias: str) -> int | None:
        with self._asking():
            model = self._model(name)
        number = None if model is None else model.aliases.get(alias)
        return None if number is None else int(number)

    @staticmethod
    def _absent_as_none(ask: Any, *of_what: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return ask(*of_what)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn MLflow's errors into ours, and keep its libraries' deprecations off the screen."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            self._client  # noqa: B018 imports MLflow, quietly
            from mlflow.exceptions import MlflowException

            try:
                yield
            except MlflowException as error:
                raise Retry(f"MLflow at {self._uri}: {error}; is it up? see MILLSTREAM_MLFLOW_TRACKING_URI") from error


def _params(manifest: str) -> Mapping[str, object]:
    try:
        return Manifest.from_json(manifest).params
    except ManifestError:
        return {}


def open_registry(settings: Settings) -> MlflowRegistry:
    """Return the registry of the settings: their tracking URI, or sqlite in the state directory."""
    if settings.mlflow_tracking_uri is not None:
        return MlflowRegistry(settings.mlflow_tracking_uri)
    folder = settings.state_dir.resolve() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")

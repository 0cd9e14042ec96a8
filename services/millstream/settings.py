"""Every setting, read once from ``MILLSTREAM_*`` and the project's ``millstream.toml`` into one frozen object.

The environment wins over the file. Relative paths in the file, and the defaults, are relative to the project's folder;
those in the environment are relative to the working directory.

Kafka client settings pass straight through: ``MILLSTREAM_KAFKA_SASL_MECHANISMS=PLAIN`` becomes librdkafka's
``sasl.mechanisms=PLAIN``. With ``MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS`` or ``MILLSTREAM_REDIS_URL`` set, that endpoint
is used; without them, the embedded servers of the state directory are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from millstream.core import urls
from millstream.errors import Misconfigured
from millstream.project_file import FILE, Kind, Project, nearest, open_project

PREFIX = "MILLSTREAM_"
_KAFKA = PREFIX + "KAFKA_"
DECIDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("acks", "request.required.acks"), ("all", "-1")),
    **dict.fromkeys(("enable.auto.commit", "auto.commit.enable", "allow.auto.create.topics"), ("false",)),
    "delivery.report.only.error": ("false",),
    "enable.idempotence": ("true",),
    "group.protocol": ("classic",),
    "isolation.level": ("read_committed",),
    "partition.assignment.strategy": ("cooperative-sticky",),
    "partitioner": ("murmur2_random",),
    **dict.fromkeys(
        ("auto.offset.reset", "enable.partition.eof", "group.id", "group.instance.id", "group.remote.assignor"), ()
    ),
    **dict.fromkeys(("transaction.timeout.ms", "transactional.id"), ()),
}
"""librdkafka settings on which exactly once, order or partitions depend, and the values that leave them as they are."""
_SCHEMES = {"redis_url": ("redis", "rediss", "unix"), "schema_registry_url": ("http", "https")}
_NOTHING: Mapping[str, object] = {}
_from_file: ContextVar[Mapping[str, object]] = ContextVar("_from_file", default=_NOTHING)


class Settings(BaseSettings):
    """Millstream's settings; every field is ``MILLSTREAM_`` plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    state_dir: Path = Field(default=Path(".millstream"), description="embedded servers, offline log, models, caches")
    feature_repo: Path = Field(default=Path("feature_repo"), description="the Feast repo")
    schemas_dir: Path | None = Field(default=None, description="contracts; default: the ones shipped")
    redis_url: SecretStr | None = Field(
        default=None, description="redis:// or rediss:// URL instead of embedded Valkey"
    )
    schema_registry_url: str | None = Field(default=None, description="Confluent-compatible registry; default: none")
    schema_registry_user_info: SecretStr | None = Field(default=None, description="user:password for the registry")
    mlflow_tracking_uri: str | None = Field(default=None, description="default: sqlite in the state directory")

    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    worker_id: str | None = Field(default=None, description="stable name of this worker; default: a free slot")
    partitions: int = Field(default=4, ge=1, le=1024, description="partitions of topics this command creates")
    replication: int = Field(default=1, ge=1, le=9, description="replication factor of topics this command creates")
    retention_days: int | None = Field(
        default=None, ge=1, description="days that new topics keep their records; default: unlimited"
    )
    batch_records: int = Field(default=5000, ge=1, le=100_000, description="most records in one micro-batch")
    checkpoint_interval_ms: int = Field(default=2000, ge=100, description="between checkpoints of window state")
    transaction_timeout_ms: int = Field(default=15_000, ge=1000, description="after which a dead worker's is aborted")
    shutdown_deadline_ms: int = Field(default=20_000, ge=1000, description="from SIGTERM to a forced exit")
    watchdog_ms: int = Field(
        default=120_000, ge=1000, description="lag without progress for this long ends the process"
    )
    dead_letter_share: float = Field(default=0.5, gt=0, le=1, description="share above which a stage stops; 1 = never")
    dead_letter_window: int = Field(default=2000, ge=10, description="records over which that share is taken")
    event_ahead_max_ms: int = Field(
        default=3_600_000, ge=0, description="an event further ahead of the worker's clock is dead-lettered"
    )
    late_policy: Literal["dead_letter", "count"] = Field(
        default="dead_letter", description="what becomes of late events"
    )
    max_record_bytes: int = Field(
        default=1_000_000, ge=1, le=15_000_000, description="larger records are dead-lettered; features need room too"
    )
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535, description="Prometheus and health endpoint; 0 = a free port")
    label_precedence: str = Field(
        default="", description="label sources, the most trusted first, comma-separated; others come after, as equals"
    )
    label_horizon_days: int = Field(
        default=180, ge=1, description="a label known later than this after its event does not count"
    )
    ledger_memory_mb: int = Field(default=256, ge=16, description="memory for all label ledgers of a worker")
    quality_maturities_days: str = Field(
        default="7, 30, 90", description="ages at which labels are counted, besides the label horizon; comma-separated"
    )
    quality_investigated: str = Field(
        default="", description="column of what precision@k counts; default: the event contract's key"
    )
    quality_top_k: int = Field(
        default=100,
        ge=1,
        validation_alias=AliasChoices(f"{PREFIX}QUALITY_TOP_K", f"{PREFIX}QUALITY_CARDS"),
        description="how many of those can be investigated a day; formerly MILLSTREAM_QUALITY_CARDS",
    )
    quality_group: str = Field(
        default="", description="column with few values whose groups are compared (fairness); default: none"
    )
    online_model: Path | None = Field(
        default=None, description="file that declares the online model; default: online_model.py of the feature repo"
    )
    snapshot_key: SecretStr | None = Field(
        default=None,
        description="signs online models; default: one made and kept in the state directory",
    )
    learn_segment: str | None = Field(
        default=None, description="column whose values have an online model each; default: one model for all"
    )
    learn_max_segments: int = Field(
        default=100, ge=1, le=100_000, description="most values that have one; later ones share one more"
    )
    answer: Literal["champion", "online", "blend"] = Field(
        default="champion", description="whose score is the answer; with champion the online model is a shadow"
    )
    blend_online_share: float = Field(
        default=0.5, ge=0, le=1, description="weight of the online model's probability in a blend"
    )
    online_budget_ms: float = Field(
        default=5.0, ge=0, description="per micro-batch, for a shadow that cannot be scored as columns"
    )
    score_threads: int = Field(default=1, ge=1, description="LightGBM threads per worker")

    kafka: Mapping[str, str] = Field(default_factory=dict, description="librdkafka settings from MILLSTREAM_KAFKA_*")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read overrides, the environment and what `load_settings` has of the project's file; the first one wins."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(_from_file.get()))

    @field_validator("redis_url", "schema_registry_url")
    @classmethod
    def _url(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        schemes = _SCHEMES[str(info.field_name)]
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None and (problem := urls.problem(text, schemes)):
            raise ValueError(problem)
        return value

    @field_validator("kafka")
    @classmethod
    def _decided(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        wrong = [
            _decided_by_engine(name, DECIDED[name])
            for name, found in sorted(value.items())
            if name in DECIDED and found.strip().lower() not in DECIDED[name]
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return value


def _decided_by_engine(name: str, allowed: Sequence[str]) -> str:
    instead = {"transaction.timeout.ms": ", use MILLSTREAM_TRANSACTION_TIMEOUT_MS"}.get(name, "")
    how = f" ({' or '.join(allowed)})" if allowed else ""
    return f"{_variable(name)}: the engine itself decides {name}{how}; unset it{instead}"


def _variable(option: str) -> str:
    return f"{_KAFKA}{option.upper().replace('.', '_')}"


def load_settings(
    environ: Mapping[str, str] | None = None, project: Path | None = None, **overrides: object
) -> Settings:
    """Read settings from the environment and the project's file; ``overrides`` (command-line options) win.

    Parameters
    ----------
    environ : mapping, optional
        Where librdkafka settings are read from instead of the environment; no project's file is then read unless
        ``project`` is given.
    project : Path, optional
        Where to find the project's folder, there or above; default: the working directory.

    Raises
    ------
    Misconfigured
        Naming each key that is wrong, what was found and what is allowed.
    """
    for name in overrides.keys() - Settings.model_fields.keys():
        raise Misconfigured(f"there is no setting {name!r}{nearest(name, list(Settings.model_fields))}")
    found = Project() if environ is not None and project is None else open_project(_kinds(), _defaults(), project)
    environ = os.environ if environ is None else environ
    kafka = {
        name[len(_KAFKA) :].lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(_KAFKA) and value
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    kafka |= given.pop("kafka", {})  # type: ignore[call-overload]
    token = _from_file.set({name: value for name, value in found.settings.items() if not _in_environment(name)})
    try:
        return Settings(kafka={**found.kafka, **kafka}, **given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            message = problem["msg"].removeprefix("Value error, ")
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper().removeprefix(PREFIX)
            key = name.removeprefix(PREFIX).lower()
            if key in found.settings and key not in given and not _in_environment(key):
                name = f"{_file(found)}, {key}"
            lines.append(message if name == _KAFKA.rstrip("_") else f"{name}: {message}")
        text = "\n  ".join(lines)
        for option in found.kafka.keys() - kafka.keys():
            text = text.replace(f"{_variable(option)}: ", f"{_file(found)}, kafka, {option}: ")
        raise Misconfigured(f"settings are wrong:\n  {text}") from error
    finally:
        _from_file.reset(token)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return settings as the variables that a child process reads them from, paths absolute and secrets in clear."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set if name != "kafka"}
    found = {PREFIX + name.upper(): _plain(value) for name, value in values.items() if value is not None}
    return found | {_variable(option): value for option, value in settings.kafka.items()}


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.resolve() if isinstance(value, Path) else value)


def _file(project: Project) -> str:
    return str(project.folder / FILE) if project.folder is not None else FILE


def _kinds() -> dict[str, Kind]:
    return {name: _kind(name, field.annotation) for name, field in Settings.model_fields.items() if name != "kafka"}


def _kind(name: str, annotation: Any) -> Kind:
    types = (annotation, *get_args(annotation))
    if SecretStr in types and name not in _SCHEMES:  # a URL is a secret only if there is a password in it
        return "secret"
    return "path" if Path in types else "value"


def _defaults() -> dict[str, Path]:
    fields = Settings.model_fields.items()
    return {name: field.default for name, field in fields if isinstance(field.default, Path)}


def _in_environment(name: str) -> bool:
    alias = Settings.model_fields[name].validation_alias
    names = [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else [PREFIX + name.upper()]
    return any(each in os.environ for each in names)

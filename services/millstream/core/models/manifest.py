"""A model's manifest: its features, training data and metrics; as a value and as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, get_args

from millstream.core.declaration import Declaration, FeatureType, Service
from millstream.core.drift.model_reference import ModelReference
from millstream.core.profile import FeatureProfile
from millstream.core.text import few

FORMAT: Final = 1


class ManifestError(ValueError):
    """A manifest's JSON text is not one, or is of a newer format."""


@dataclass(frozen=True, slots=True)
class Training:
    """The history a model has seen.

    Parameters
    ----------
    from_ms, to_ms : int
        Event times of the first and last row that trees were grown on or stopped by, milliseconds since the epoch.
    as_of_ms : int
        Only labels known by then were used.
    label_delay_ms : int
        How long after its event a label was taken to be known.
    rows, positives : mapping of str to int
        By part: ``train``, ``validation``, ``holdout``.
    data_sha256 : str
        Of the bytes of the ``train`` part's feature columns (float64, in order) and labels.
    offsets : mapping of str to (int, int)
        ``topic[partition]`` to first and one past the last offset; empty if the history did not come from Kafka.
    """

    from_ms: int
    to_ms: int
    as_of_ms: int
    label_delay_ms: int
    rows: Mapping[str, int]
    positives: Mapping[str, int]
    data_sha256: str
    offsets: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's manifest.

    Parameters
    ----------
    model : str
        Registered name.
    service : str
        Name of the ``FeatureService`` it reads.
    features : tuple of (column, dtype)
        In the order of the model's vector.
    definitions : mapping of str to str
        What each feature meant, as `define` puts it; features without a definition are not compared.
    training : Training
    metrics : mapping of str to float
        On the holdout part.
    threshold : float or None
        Decision threshold on the score, in [0, 1]; None leaves it to the service.
    profile : mapping of str to FeatureProfile
        Distribution of each feature in the training part, for a person to read.
    params, libraries : mapping
        What the model was trained with.
    git_commit : str or None
        Of the feature repo.
    created_at_ms : int
        Milliseconds since the epoch.
    body_sha256 : str
        Of the LightGBM text, UTF-8.
    reference : ModelReference or None
        What its monitors go by; None for a model from before there were any.
    """

    model: str
    service: str
    features: tuple[tuple[str, FeatureType], ...]
    definitions: Mapping[str, str]
    training: Training
    metrics: Mapping[str, float]
    threshold: float | None
    profile: Mapping[str, FeatureProfile]
    params: Mapping[str, str | int | float | bool]
    libraries: Mapping[str, str]
    git_commit: str | None
    created_at_ms: int
    body_sha256: str
    reference: ModelReference | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 of the features and their definitions: equal where two models read the same things."""
        read = [[name, dtype, self.definitions.get(name)] for name, dtype in self.features]
        return sha256(json.dumps(read, ensure_ascii=False))

    def to_json(self) -> str:
        """Return JSON text that `from_json` reads back to an equal value.

        On the way NaN becomes null and infinities, which JSON has no numbers for, the texts that `float` reads.
        """
        reference = None if self.reference is None else self.reference.to_json()
        rest = asdict(replace(self, reference=None))
        body = {"format": FORMAT, "fingerprint": self.fingerprint, **rest, "reference": reference}
        return json.dumps(_as_json(body), ensure_ascii=False, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest.

        Raises
        ------
        ManifestError
            Naming what is wrong with the text.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"manifest is not JSON: {error}") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else None
            raise ManifestError(f"manifest has format {found!r}, this version reads {FORMAT}; upgrade Millstream")
        wanted = {item.name for item in fields(Manifest)}
        missing = sorted(wanted - raw.keys() - {"reference"})
        if missing:
            raise ManifestError(f"manifest lacks {', '.join(missing)}")
        try:
            return Manifest(**{**{name: raw.get(name) for name in wanted}, **_typed(raw)})
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError, zlib.error) as error:
            raise ManifestError(f"manifest is malformed: {error}") from error


def mismatches(manifest: Manifest, service: Service, definitions: Mapping[str, str] | None = None) -> list[str]:
    """Return what keeps a model from answering for a service, one sentence of each kind; empty when it fits.

    The order of features may differ, and the service may have more of them: vectors are built by name. However many
    features differ, a sentence counts them and names the first three.

    Parameters
    ----------
    definitions : mapping of str to str, optional
        What the running feature repo means by each feature (`define`); None compares names and dtypes only.
    """
    found = []
    if manifest.service != service.name:
        found.append(f"it reads feature service {manifest.service!r}, the running one is {service.name!r}")
    trained, running, now = dict(manifest.features), dict(service.features), definitions or {}
    absent = [repr(name) for name in trained if name not in running]
    retyped = [
        f"{name!r} was {dtype} in training and is {running[name]} now"
        for name, dtype in trained.items()
        if name in running and running[name] != dtype
    ]
    redefined = [
        f"{name!r} meant {meant!r} in training and means {now[name]!r} now"
        for name, meant in manifest.definitions.items()
        if name in trained and name in running and name in now and now[name] != meant
    ]
    total = len(trained)
    found += _counted(absent, total, "not in the service")
    found += _counted(retyped, total, "of another type")
    found += _counted(redefined, total, "defined otherwise")
    return found


def _counted(cases: Sequence[str], total: int, what: str) -> list[str]:
    """Return one sentence about features, [] if there are none.

    Examples
    --------
    >>> _counted(["'a'", "'b'", "'c'", "'d'"], 9, "not in the service")
    ["4 of its 9 features are not in the service: 'a', 'b', 'c' and 1 more"]
    """
    if not cases:
        return []
    verb = "is" if len(cases) == 1 else "are"
    return [f"{len(cases)} of its {total} features {verb} {what}: {few(cases)}"]


def define(declaration: Declaration) -> dict[str, str]:
    """Return, in words, what each feature of the service means; a change of window or function changes the words.

    Row-level transforms are named by their inputs: their code has no stable text.
    """
    words = {}
    for view in declaration.views:
        for column, each in zip(view.columns, view.aggregates, strict=True):
            words[column] = (
                f"{each.function}({each.column}) over {each.window_ms} ms of {view.topic} by {view.join_key}"
            )
    for transform in declaration.on_demand:
        for name, _ in transform.outputs:
            words[f"{transform.name}__{name}"] = f"{transform.name}.{name}({', '.join(transform.inputs)})"
    for batch in declaration.batch:
        for name, _ in batch.features:
            words[f"{batch.name}__{name}"] = f"{batch.name}.{name} by {', '.join(key for key, _ in batch.join_keys)}"
    return {name: words[name] for name, _ in declaration.service.features if name in words}


def sha256(text: str) -> str:
    """Return the sha256 of the text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _typed(raw: Mapping[str, Any]) -> dict[str, Any]:
    features = tuple((str(name), dtype) for name, dtype in raw["features"])
    unknown = sorted({dtype for _, dtype in features} - set(get_args(FeatureType)))
    if unknown:
        raise ValueError(f"unknown feature dtype {', '.join(unknown)}")
    training = raw["training"]
    offsets = {where: (int(first), int(end)) for where, (first, end) in training["offsets"].items()}
    reference = raw.get("reference")
    return {
        "features": features,
        "reference": None if reference is None else ModelReference.of_json(reference),
        "training": Training(**{**training, "offsets": offsets}),
        "profile": {name: FeatureProfile.of_json(each) for name, each in raw["profile"].items()},
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _as_json(each) for key, each in value.items()}
    return [_as_json(each) for each in value] if isinstance(value, (list, tuple)) else value

"""Feast's types as the engine's types."""

from __future__ import annotations

from typing import Any

from millstream.adapters.feast.parameters import refuse_unsupported
from millstream.core.declaration import FeatureType, KeyType
from millstream.core.feast_cast import FEAST_NAMES
from millstream.errors import Misconfigured

_TYPES: dict[str, FeatureType] = {name: dtype for dtype, name in FEAST_NAMES.items()}
_KEYS: dict[str, KeyType] = {"INT64": "int64", "STRING": "string"}


def feature_type(owner: str, field: Any) -> FeatureType:
    """Return the type of a field.

    Raises
    ------
    Misconfigured
        Naming the field and its type.
    """
    kind = str(field.dtype)
    if kind not in _TYPES:
        raise Misconfigured(f"{owner}: feature {field.name!r} is {kind}; supported: {', '.join(_TYPES)}")
    refuse_unsupported("Field", f"{owner}: feature {field.name!r}", field)
    return _TYPES[kind]


def join_key(owner: str, name: str, entities: dict[str, Any]) -> tuple[str, KeyType]:
    """Return the join key of an entity and its type.

    Raises
    ------
    Misconfigured
        Naming the entity.
    """
    entity = entities.get(name)
    if entity is None:
        raise Misconfigured(
            f"{owner} has no entity" if name == "__dummy" else f"{owner}: entity {name!r} is not declared in the repo"
        )
    kind = str(entity.value_type.name)
    if kind not in _KEYS:
        raise Misconfigured(f"entity {name!r} has value type {kind}; supported: {', '.join(_KEYS)}")
    return entity.join_key, _KEYS[kind]

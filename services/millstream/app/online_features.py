"""Read online features of entities, as any Feast client does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millstream.core.text import few
from millstream.errors import Misconfigured, Retry

if TYPE_CHECKING:
    from millstream.core.declaration import Declaration, KeyType
    from millstream.settings import Settings


def read_online(
    settings: Settings,
    declaration: Declaration,
    rows: Sequence[Mapping[str, Any]],
    features: Sequence[str] | None = None,
) -> dict[str, list[Any]]:
    """Return the values of each feature, in the order of the rows, by its column's name.

    Parameters
    ----------
    rows : sequence of mapping
        Join keys and their values; the same keys in each row.
    features : sequence of str, optional
        Columns, such as ``view__feature``; default: all that the keys reach.

    Raises
    ------
    Misconfigured
        A key or a feature is not declared, or the feature repo was not applied.
    Retry
        The online store cannot be reached.
    """
    from millstream.adapters.feast.repo import close_store, open_store, quiet_feast

    names = _reached(declaration, _keys(declaration, rows))
    if features is not None:
        _require_known(features, names)
        names = {name: column for name, column in names.items() if column in features}
    with quiet_feast():
        store = open_store(settings)
        try:
            answer = _read(store, list(names), rows)
        finally:
            close_store(store)
    return {column: answer[column] for column in names.values()}


def join_keys(declaration: Declaration) -> dict[str, KeyType]:
    """Return every join key with its type."""
    keys = {view.join_key: view.key_type for view in declaration.views}
    return keys | {name: kind for view in declaration.batch for name, kind in view.join_keys}


def _keys(declaration: Declaration, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    known, keys = join_keys(declaration), list(rows[0]) if rows else []
    if not keys:
        raise Misconfigured(f"no entity is given; join keys are: {', '.join(sorted(known))}")
    for number, row in enumerate(rows):
        if set(row) != set(keys):
            raise Misconfigured(f"row {number} has the keys {', '.join(row)}, and row 0 has {', '.join(keys)}")
        for key, value in row.items():
            if key not in known:
                raise Misconfigured(f"row {number}: {key!r} is no join key; join keys are: {', '.join(sorted(known))}")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if (known[key] == "int64") != whole or (not whole and not isinstance(value, str)):
                wanted = "a whole number" if known[key] == "int64" else "a text"
                raise Misconfigured(f"row {number}: {key} is {value!r}, and must be {wanted}")
    return keys


def _reached(declaration: Declaration, keys: Sequence[str]) -> dict[str, str]:
    """Return the columns of all online features that these keys reach, by Feast's name."""
    names = {
        f"{view.name}:{each.feature}": column
        for view in declaration.views
        if view.online and view.join_key in keys
        for column, each in zip(view.columns, view.aggregates, strict=True)
    }
    names |= {
        f"{view.name}:{name}": f"{view.name}__{name}"
        for view in declaration.batch
        if all(key in keys for key, _ in view.join_keys)
        for name, _ in view.features
    }
    if not names:
        wanted = ", ".join(sorted(join_keys(declaration)))
        raise Misconfigured(f"no online view has just the keys {', '.join(keys)}; join keys are: {wanted}")
    return names


def _require_known(features: Sequence[str], names: Mapping[str, str]) -> None:
    unknown = [each for each in features if each not in names.values()]
    if unknown:
        raise Misconfigured(
            f"no online feature of these keys is named {few(unknown)}; there are: {', '.join(names.values())}"
        )


def _read(store: Any, features: list[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    from feast.errors import FeatureViewNotFoundException
    from redis import RedisError

    try:
        return store.get_online_features(features, [dict(row) for row in rows], full_feature_names=True).to_dict()  # type: ignore[no-any-return]
    except FeatureViewNotFoundException as error:
        raise Misconfigured(f"{error}; run `millstream features apply`") from error
    except RedisError as error:
        raise Retry(f"the online store cannot be reached: {error}; see `millstream doctor`") from error

"""Random writers evolved from a random reader: logical types, nested fields, unions; and records of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
SYMBOLS = ["red", "green", "blue"]

TREE: Json = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "leaf", "type": "string"},
        {"name": "children", "type": {"type": "array", "items": "Tree"}},
        {"name": "by_name", "type": {"type": "map", "values": ["null", "long", {"type": "array", "items": "double"}]}},
    ],
}
NESTED: list[Any] = [
    "null",
    {"type": "array", "items": "string"},
    {"type": "array", "items": "null"},
    {"type": "map", "values": "bytes"},
    {"type": "record", "name": "Empty", "fields": []},
    {"type": "array", "items": {"type": "record", "name": "Hollow", "fields": [{"name": "n", "type": "null"}]}},
    {"type": "fixed", "name": "Four", "size": 4},
    {"type": "fixed", "name": "Zero", "size": 0},
    {"type": "enum", "name": "Mood", "symbols": ["good", "bad"]},
    ["int", "string", "boolean"],
    ["null", {"type": "array", "items": ["null", "float"]}],
    ["long"],
    TREE,
    ["null", TREE, "double"],
]


PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**6), 10**6).map(lambda n: n * 10**6),
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
}


def values(kind: Any, names: dict[str, Any] | None = None, depth: int = 3) -> st.SearchStrategy[Any]:
    """Return values of any Avro type, as fastavro writes them; logical types are not looked at."""
    names = {} if names is None else names
    if isinstance(kind, list):
        return st.one_of([values(each, names, depth) for each in kind])
    if isinstance(kind, str) and kind in names:
        return st.deferred(lambda: values(names[kind], names, depth - 1))
    tag = kind["type"] if isinstance(kind, dict) else kind
    few = 3 if depth > 0 else 0
    made = {
        "record": lambda: st.fixed_dictionaries({each["name"]: inner(each["type"]) for each in kind["fields"]}),
        "array": lambda: st.lists(inner(kind["items"]), max_size=few),
        "map": lambda: st.dictionaries(st.text(max_size=3), inner(kind["values"]), max_size=few),
        "enum": lambda: st.sampled_from(kind["symbols"]),
        "fixed": lambda: st.binary(min_size=kind["size"], max_size=kind["size"]),
    }

    def inner(each: Any) -> st.SearchStrategy[Any]:
        return values(each, names, depth)

    if isinstance(kind, dict) and "name" in kind:
        names[kind["name"]] = kind
    return made[tag]() if tag in made else PRIMITIVES[tag]


FLAT: list[Any] = [
    "int",
    "long",
    "float",
    "double",
    "boolean",
    "string",
    "bytes",
    {"type": "enum", "name": "Colour", "symbols": SYMBOLS},
    {"type": "enum", "name": "Colour", "symbols": SYMBOLS[::-1][:2], "default": "green"},
    {"type": "fixed", "name": "Key", "size": 3},
]
FIELDS = ["a", "b", "c"]


@st.composite
def evolved(draw: st.DrawFn) -> tuple[Json, Json]:
    """Draw a writer's and a reader's record: the same names, types that may or may not resolve, more on either side."""

    def field(name: str, kinds: list[Any], default: bool) -> Json:
        kind = draw(st.sampled_from(kinds))
        if draw(st.booleans()) and not isinstance(kind, list) and kind != "null":
            kind = draw(st.sampled_from([["null", kind], [kind, "null"]]))
        optional = {"default": None} if default and isinstance(kind, list) and kind[0] == "null" else {}
        return {"name": name, "type": kind, **optional}

    unions = [["int", "string"], ["null", "long", "double"], ["boolean", "bytes", "null"], ["float", "null", "int"]]
    more = draw(st.lists(st.sampled_from(NESTED), max_size=2, unique_by=str))
    wrote = [field(name, [*FLAT, *unions], False) for name in draw(st.permutations(FIELDS))]
    wrote += [{"name": f"more{i}", "type": kind} for i, kind in enumerate(more)]
    read = [field(name, FLAT, True) for name in draw(st.permutations(FIELDS))[: draw(st.integers(1, 3))]]
    read += [{"name": "later", "type": "string", "default": "née"}] if draw(st.booleans()) else []
    record = {"type": "record", "name": "Thing", "namespace": "test"}
    return (
        {**record, "fields": once(draw(st.permutations(wrote)))},
        {**record, "fields": once(read)},
    )


def once(fields: list[Json]) -> list[Json]:
    """Give every later definition of a name another one, so that each schema defines each name once."""
    seen: set[str] = set()

    def renamed(kind: Any) -> Any:
        if isinstance(kind, list):
            return [renamed(each) for each in kind]
        if isinstance(kind, dict) and "name" in kind:
            if kind["name"] in seen:
                return kind["name"] if kind["name"] != "Colour" else "string"
            seen.add(kind["name"])
            return kind
        return kind

    return [{**each, "type": renamed(each["type"])} for each in fields]

"""Tables: keyed state of an agent, one part for each partition of its input, stored in the transaction of the events.

The changed entries of a micro-batch are written to the agent's changelog topic in the transaction that commits the
micro-batch's offsets, as Kafka Streams stores changelogs under exactly-once [1]_. Recovery reads the changelog; no
event is processed again, so an agent need not be deterministic.

References
----------
.. [1] Apache Kafka, KIP-129, "Streams Exactly-Once Semantics".
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from millstream.runtime.agents.context import MISSING, current

_PLAIN = (str, int, float, bool, type(None))


class Table(MutableMapping[Any, Any]):
    """A mapping that belongs to the partition of the event being processed.

    Values are what JSON can hold. A value that is a list or dict is returned as a copy: assign it to store a change.
    Outside of an event (in a timer or command) all partitions are read, and nothing can be written.

    Parameters
    ----------
    name : str
    default : callable, optional
        Makes the value of a key that is not there, such as ``int``.
    """

    def __init__(self, name: str, default: Callable[[], Any] | None = None) -> None:
        self.name = name
        self.default = default
        self.owner: str | None = None
        self.partitions: dict[int, dict[Any, Any]] = {}

    def __getitem__(self, key: Any) -> Any:
        for part in self._readable():
            if key in part:
                value = part[key]
                return value if isinstance(value, _PLAIN) else copy.deepcopy(value)
        if self.default is None:
            raise KeyError(key)
        return self.default()

    def __setitem__(self, key: Any, value: Any) -> None:
        stored_key(key)
        try:
            json.dumps(value, allow_nan=True)
        except (TypeError, ValueError) as error:
            raise TypeError(f"table {self.name!r} holds what JSON can hold; found {value!r}: {error}") from error
        self._note(key)[key] = value if isinstance(value, _PLAIN) else copy.deepcopy(value)

    def __delitem__(self, key: Any) -> None:
        del self._note(key)[key]

    def __iter__(self) -> Iterator[Any]:
        for part in self._readable():
            yield from list(part)

    def __len__(self) -> int:
        return sum(len(part) for part in self._readable())

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self._readable())

    def _readable(self) -> list[dict[Any, Any]]:
        scope = current.get()
        if scope is None:
            return [self.partitions[partition] for partition in sorted(self.partitions)]
        self.claim(scope.agent)
        return [self.partitions.setdefault(scope.partition, {})]

    def _note(self, key: Any) -> dict[Any, Any]:
        scope = current.get()
        if scope is None:
            raise RuntimeError(f"table {self.name!r} can be changed only while an agent processes an event")
        self.claim(scope.agent)
        part = self.partitions.setdefault(scope.partition, {})
        scope.before.setdefault((self.name, scope.partition, key), part.get(key, MISSING))
        return part

    def claim(self, agent: str) -> None:
        """Note which agent's table this is.

        Raises
        ------
        RuntimeError
            It is another's, whose partitions may be on another worker.
        """
        if self.owner not in (None, agent):
            raise RuntimeError(
                f"table {self.name!r} is the state of agent {self.owner!r}; give agent {agent!r} its own, or "
                "send it what it needs through a topic"
            )
        self.owner = agent

    def undo(self, partition: int, key: Any, before: Any) -> None:
        """Put back what an entry was."""
        part = self.partitions.setdefault(partition, {})
        if before is MISSING:
            part.pop(key, None)
        else:
            part[key] = before

    def row(self, partition: int, key: Any) -> tuple[bytes, bytes | None]:
        """Return an entry as a record of the changelog; the value is None where the entry was deleted."""
        part = self.partitions.get(partition, {})
        value = json.dumps(part[key]).encode() if key in part else None
        return json.dumps([self.name, stored_key(key)]).encode(), value


def stored_key(key: Any) -> Any:
    """Return a key as JSON holds it.

    Raises
    ------
    TypeError
        The key is neither text, an integer, a boolean, None nor a tuple of those.
    """
    if isinstance(key, tuple):
        return [stored_key(each) for each in key]
    if isinstance(key, _PLAIN) and not isinstance(key, float):
        return key
    raise TypeError(f"keys of tables are text, integers, booleans, None or tuples of those; found {key!r}")


def loaded_key(key: Any) -> Any:
    """Return the key that `stored_key` wrote."""
    return tuple(loaded_key(each) for each in key) if isinstance(key, list) else key

"""Identity of a topic's log: its topic id (KIP-516), and its generation in this project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from millstream.core.generations import GENERATION
from millstream.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that stored offsets of a topic are of.

    Parameters
    ----------
    topic_id : str
        Kafka's id, hexadecimal; "" where the broker has none.
    generation : int
        How many logs of that name the project has worked on before; see `millstream.core.generations`.
    layout : int
        How often the topic was rescaled: state on disk of another layout holds other keys.
    """

    topic_id: str
    generation: int = 0
    layout: int = 0


def _unknown(_topics: Iterable[str]) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of a project's topics, and how to compare them with the topics there are.

    Parameters
    ----------
    known : mapping of str to Origin
        By topic; one that is absent is of generation 0 and is not compared.
    present : callable (topics) -> ids by topic
        Asks the broker; a topic that it does not return is not compared.
    """

    known: Mapping[str, Origin] = field(default_factory=dict)
    present: Callable[[Iterable[str]], Mapping[str, str]] = _unknown

    def base(self, topic: str) -> int:
        """Return what a stored offset has more than Kafka's own."""
        origin = self.known.get(topic)
        return 0 if origin is None else origin.generation * GENERATION

    def layout(self, topic: str) -> int:
        """Return how often the topic was rescaled."""
        origin = self.known.get(topic)
        return 0 if origin is None else origin.layout

    def check(self) -> None:
        """Compare all known topics with the ones there are.

        Raises
        ------
        Misconfigured
            One was deleted and created again: stored offsets and state are of the earlier log.
        """
        present = self.present(self.known)
        replaced = sorted(
            topic for topic, origin in self.known.items() if present.get(topic, origin.topic_id) != origin.topic_id
        )
        if replaced:
            raise Misconfigured(
                f"{', '.join(replaced)} was deleted and created again: the stored offsets and state are of the earlier "
                "log, so that going on would skip records of the new one. Stop all stages and run `millstream topics "
                "adopt`: the new log is read from its beginning, and windows, ledger and models keep what they have of "
                "the earlier one"
            )


def out_of_range(topic: str, partition: int, offset: int, begins: int, ends: int) -> str:
    """Return why a committed offset cannot be read from, and what to do.

    Parameters
    ----------
    offset : int
        Kafka's own, as committed.
    begins, ends : int
        Of the log as it is.
    """
    where = f"{topic}[{partition}]: the committed offset {offset} is not in the log, which holds {begins} to {ends}"
    if offset > ends:
        return (
            f"{where}: the log is shorter than what was read of it, so that it was deleted and created again, or its "
            f"broker lost records. Stop all stages and run `millstream topics adopt {topic}`: the log that is there is "
            "read from its beginning, and windows, ledger and models keep what they have"
        )
    return (
        f"{where}: records were deleted by retention before they were read. Raise `retention.ms` of {topic}; to go on "
        f"without them, stop all stages and run `millstream topics adopt {topic}`, which reads on from offset {begins}"
    )


def grown(topic: str, known: int, count: int) -> str:
    """Return why stages cannot go on with a topic that has more partitions than it had, and what to do."""
    return (
        f"{topic} had {known} partitions and has {count} now, so that keys move to partitions that do not hold their "
        "state; what arrived in the last seconds may be answered without its history. `millstream topics rescale` adds "
        "partitions and moves state; where that was not used, create the topics again with the number you want, and "
        "publish or replay what they held"
    )

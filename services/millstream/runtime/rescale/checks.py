"""What a rescale requires before it begins: no truncated dead letter is lost, all state is written, and no agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.groups import committed_offsets
from millstream.errors import Misconfigured
from millstream.runtime.recovery import MARKER_KEY, Marker
from millstream.runtime.rescale.state import measured, state_rows
from millstream.topology import MEASURE, MEASURE_CHANGELOG, SCORED, StagePlan, Topology

_SHOWN = 5


def require_growth(now: int, count: int) -> None:
    """Refuse a number of partitions that is not greater than the present one.

    Raises
    ------
    Misconfigured
        Naming both.
    """
    if count == now:
        raise Misconfigured(f"the topics have {now} partitions already; there is nothing to rescale")
    if count < now:
        raise Misconfigured(
            f"the topics have {now} partitions and cannot shrink to {count}: rescale only adds partitions, as Kafka "
            "does. For fewer, let a project of another name (or with other names in topics.toml) create its topics "
            f"with MILLSTREAM_PARTITIONS={count}, and publish the events and labels there again"
        )


def refuse_truncated_dead_letters(ids: Sequence[str]) -> None:
    """Refuse to move the originals of dead letters that hold only the beginning of a large record.

    Parameters
    ----------
    ids : sequence of str
        Of those that were not sent back yet and whose originals are still at their places.

    Raises
    ------
    Misconfigured
        There are such dead letters.
    """
    if ids:
        shown = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
        raise Misconfigured(
            f"{len(ids):,} dead letters hold only the beginning of their record, because of its size, and the record "
            f"is only at its place in the topic, which a rescale changes ({shown}). Send them back first "
            "(`millstream dead-letters redrive --id ID`), or go on without their originals "
            "(`millstream topics rescale --abandon-cut-letters`)"
        )


def require_checkpoint(
    kafka: Mapping[str, str],
    admin: AdminClient,
    topology: Topology,
    stage: StagePlan,
    now: int,
    bases: Mapping[str, int],
) -> None:
    """Refuse window state that is not of the committed offsets, or of several layouts.

    Parameters
    ----------
    now : int
        Partitions that there are.
    bases : mapping of str to int
        What stored offsets of a topic have more than Kafka's own.

    Raises
    ------
    Misconfigured
        Naming the partition and what to do.
    """
    committed = committed_offsets(admin, topology.group(stage.name))
    layouts: dict[str, set[str]] = {topic: set() for topic in stage.inputs}
    for partition in range(now):
        marker = state_rows(kafka, stage.changelog, partition).get(MARKER_KEY)
        stored = Marker.decode(marker) if marker is not None else None
        valid = {stage.input: stored.events if stored is not None else None}
        if stage.labels is not None:
            valid[stage.labels.input] = stored.labels if stored is not None else None
        for topic, known in valid.items():
            at = committed.get((named(kafka, topic), partition))
            if at is not None and (known is None or known.next_offset != at + bases[topic]):
                raise Misconfigured(_no_checkpoint(stage.changelog, partition, at, topic, stage.name))
            layouts[topic] |= {known.fingerprint} if known is not None else set()
    if mixed := [topic for topic, found in layouts.items() if len(found) > 1]:
        raise Misconfigured(
            f"{stage.changelog} holds state of several layouts of {mixed[0]}: start stage {stage.name} and stop it "
            "with SIGTERM, so that all of it is written in one"
        )


def require_measured(kafka: Mapping[str, str], admin: AdminClient, topology: Topology, now: int, base: int) -> None:
    """Refuse counts of the measure stage that are not of the committed offsets; as `require_checkpoint`.

    Raises
    ------
    Misconfigured
        Naming the partition and what to do.
    """
    committed = committed_offsets(admin, topology.group(MEASURE))
    for partition in range(now):
        at, held = committed.get((named(kafka, SCORED), partition)), measured(kafka, partition)
        if at is not None and (held is None or held["next_offset"] != at + base):
            raise Misconfigured(_no_checkpoint(MEASURE_CHANGELOG, partition, at, SCORED, MEASURE))


def _no_checkpoint(changelog: str, partition: int, at: int, topic: str, stage: str) -> str:
    return (
        f"{changelog}[{partition}] holds no checkpoint of the committed offset {at} of {topic}: start stage {stage} "
        "and stop it with SIGTERM, so that it writes one"
    )


def refuse_agents(topology: Topology) -> None:
    """Refuse projects with agents, whose tables are not moved.

    Raises
    ------
    Misconfigured
        Naming the agents.
    """
    if topology.agents:
        raise Misconfigured(
            "the tables of agents belong to partitions of what they read, and a rescale does not move them; it is "
            f"not available in a project with agents ({', '.join(each.name for each in topology.agents)})"
        )

"""Run an agent of a project in memory, with crashes, and look at what it sent.

Examples
--------
In a project whose ``agents.py`` declares an agent ``count``::

    from millstream.testing.agents import run_agent

    sent = run_agent("count", [{"event_id": "e1", "key": "k", ...}], crashes=2)
    assert sent["decision-counts"][-1]["count"] == 1
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.errors import Misconfigured
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.testing.faults import Crash, Faults, FaultyLog
from millstream.topology import DEAD_LETTERS

if TYPE_CHECKING:
    from millstream.runtime.agents.stage import AgentStage

Row = dict[str, Any]


def run_agent(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    project: Path | None = None,
    *,
    crashes: int = 0,
    batch_records: int = 7,
    partitions: int = 2,
    seed: int = 0,
) -> dict[str, list[Row]]:
    """Run an agent over records of its topic and return what it sent, by topic, and its dead letters.

    Parameters
    ----------
    name : str
        Of the agent.
    rows : sequence of mapping
        Records in order, by the fields of the topic's contract.
    project : Path, optional
        The project's folder, or one below it; default: the working directory.
    crashes : int
        How often the stage ends, before or after a transaction is committed, and is started again; its memory is lost.
    batch_records : int
        Largest micro-batch.
    partitions : int
    seed : int
        Of the moments of the crashes.

    Returns
    -------
    dict of str to list of dict
        Committed records by topic, partition by partition; ``dead-letters`` is always there.

    Raises
    ------
    Misconfigured
        There is no such agent, or the project is wrong.
    """
    from millstream.app.agents import agent_stage, encoder_of, load_app
    from millstream.app.project import open as open_project
    from millstream.core.avro.decode import RecordReader
    from millstream.runtime.agents.stage import rows_of

    assembly = open_project(project).assembly
    plan = next((each for each in assembly.topology.agents if each.name == name), None)
    if plan is None or assembly.agents is None:
        declared = ", ".join(each.name for each in assembly.topology.agents) or "none"
        raise Misconfigured(f"there is no agent {name!r}; there are: {declared}")
    encode = encoder_of(assembly, plan.input)
    broker, random_ = MemoryBroker(partitions=partitions), random.Random(seed)
    encoded = [encode(None, row) for row in rows]
    contract = assembly.contracts.get(plan.input)
    time = contract.event_time if contract is not None else ""
    stamps = [int(row[time]) if time else at for at, row in enumerate(rows)]
    broker.append(Output(plan.input, [key for key, _ in encoded], [value for _, value in encoded], None, stamps))
    transactions = max(1, len(rows) // batch_records)
    with asyncio.Runner() as runner:
        for life in range(crashes + 1):
            at = random_.randint(1, max(1, 2 * transactions // (crashes + 1))) if life < crashes else 0
            fresh = replace(assembly, agents=load_app(assembly.settings))  # a process of its own
            stage = agent_stage(fresh, plan, assembly.resolver(), run=runner.run)
            faults = Faults({at: "killed after" if random_.random() < 0.5 else "killed before"})
            log = FaultyLog(broker, name, faults, set(range(partitions)), batch_records)
            if _ended(stage, log, batch_records, partitions):
                break
    found: dict[str, list[Row]] = {DEAD_LETTERS: []}
    for topic in {*assembly.agents.topics_by_name, DEAD_LETTERS} - {plan.input}:
        schema = assembly.derived.get(topic) or assembly.contracts[topic].schema
        reader = RecordReader(schema, assembly.resolver())
        values = [value for part in broker.log(topic) for _, _, value in part.entries if value is not None]
        decoded = reader.decode(values, 1 << 30).batch
        found[topic] = rows_of(decoded, list(decoded.columns))
    return found


def _ended(stage: AgentStage, log: FaultyLog, batch_records: int, partitions: int) -> bool:
    """Run a stage until nothing is left to read; return False if it crashed."""
    limits, limit = LoopLimits(batch_records, 1 << 60), DeadLetterLimit(1.0, 1)
    loop = StageLoop(stage, log, limits, limit, None, Unobserved(), now_ms=lambda: 0)
    loop.start()
    try:
        while polled := loop.poll(0.0):
            loop.handle(polled)
        loop.close()
    except Crash:
        return False
    finally:
        for partition in range(partitions):
            stage.drop(partition)
    return True

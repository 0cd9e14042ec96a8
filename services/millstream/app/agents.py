"""A project's own stages: ``agents.py`` of the feature repo, compiled against the contracts or refused by name."""

from __future__ import annotations

import io
import json
import runpy
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.contracts import Contract
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import AgentPlan, Topology

if TYPE_CHECKING:
    from millstream.app.assembly import Assembly, Resolve, Writer
    from millstream.runtime.agents.app import App, Encode
    from millstream.runtime.agents.stage import AgentStage, Run

FILE = "agents.py"


def load_app(settings: Settings) -> App | None:
    """Run the feature repo's ``agents.py`` and return its app; None where there is no such file.

    Raises
    ------
    Misconfigured
        The file fails, or does not define one ``app``.
    """
    path = settings.feature_repo / FILE
    if not path.is_file():
        return None
    from millstream.runtime.agents.app import App

    try:
        found = runpy.run_path(str(path), run_name="agents")
    except Misconfigured as error:
        raise Misconfigured(f"{path}: {error}") from error
    except Exception as error:  # a team's own code: whatever it raises, the file and the reason are reported
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise Misconfigured(f"{where}: {type(error).__name__}: {error}") from error
    apps = [each for each in found.values() if isinstance(each, App)]
    if len(apps) != 1:
        raise Misconfigured(f"{path}: {len(apps)} apps found, and one is required: app = millstream.App()")
    apps[0].sealed = True
    return apps[0]


def plans(
    app: App | None, topology: Topology, contracts: Mapping[str, Contract], derived: Mapping[str, Schema], internal: str
) -> tuple[AgentPlan, ...]:
    """Return the plans of the agents that an app declares.

    Raises
    ------
    Misconfigured
        An agent has the name of another stage, or a topic has no contract.
    """
    if app is None:
        return ()
    found = []
    for agent in app.declared.values():
        if agent.name in topology.names:
            raise Misconfigured(f"{FILE}: no agent may be called {agent.name!r}: a stage is")
        found.append(AgentPlan(agent.name, agent.topic.name, internal))
    read = {plan.input for plan in found}
    for name in app.topics_by_name:
        if name not in contracts and name not in derived:
            raise Misconfigured(f"{FILE}: topic {name!r} has no contract; write schemas/{name}.avsc")
        if name not in read and not _may_send(topology, name):
            raise Misconfigured(f"{FILE}: topic {name!r} is written by the engine only; send to another topic")
    return tuple(found)


def _may_send(topology: Topology, name: str) -> bool:
    return all(each.writer in {"producers", "agents"} for each in topology.topics if each.name == name)


def agent_stage(
    assembly: Assembly,
    plan: AgentPlan,
    resolve: Resolve,
    writer: Writer = lambda _topic, schema: RecordWriter(schema),
    dead_letter_bytes: int | None = None,
    *,
    run: Run[Any],
) -> AgentStage:
    """Build the stage of an agent.

    Parameters
    ----------
    run : callable
        Runs a coroutine on the app's event loop and returns its result.
    """
    from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
    from millstream.runtime.agents.stage import AgentStage
    from millstream.stages.validate.step import Validate

    app = assembly.agents
    assert app is not None
    for topic in app.topics_by_name.values():
        topic.encode = encoder_of(assembly, topic.name, writer) if _may_send(assembly.topology, topic.name) else None
    contract = assembly.contracts.get(plan.input)
    own = plan.input not in assembly.derived and contract is not None
    schema = assembly.derived[plan.input] if contract is None or not own else contract.schema
    most_bytes = assembly.settings.max_record_bytes if own else BIG_RECORD_BYTES
    validate = Validate(RecordReader(schema, resolve), most_bytes, contract if own else None)
    return AgentStage(
        app.declared[plan.name],
        app,
        plan.changelog,
        [field.name for field in schema.flat.fields],
        validate,
        assembly.dead_letters(plan.name, writer, dead_letter_bytes or BIG_RECORD_BYTES),
        run,
    )


def encoder_of(assembly: Assembly, topic: str, writer: Writer = lambda _topic, schema: RecordWriter(schema)) -> Encode:
    """Return what makes bytes of a key and a value; it refuses values that do not fit the topic's contract."""
    import fastavro
    from fastavro.validation import ValidationError, validate

    schema = assembly.derived.get(topic) or assembly.contracts[topic].schema
    contract = assembly.contracts.get(topic)
    parsed = fastavro.parse_schema(json.loads(schema.to_json()))
    prefix, key_field = writer(topic, schema).prefix, contract.key if contract is not None else ""

    def encode(key: Any, value: Any) -> tuple[bytes | None, bytes | None]:
        if value is None:
            if key is None:
                raise ValueError(f"{topic}: a tombstone needs a key")
            return _text(key), None
        if not isinstance(value, Mapping):
            raise ValueError(f"{topic}: a value is a dict of the contract's fields, found {value!r:.100}")
        try:
            validate(value, parsed, strict=True)
        except ValidationError as error:
            raise ValueError(f"{topic}: the value does not fit the contract: {error}") from error
        if key_field:
            expected = _text(value[key_field])
            if key is not None and _text(key) != expected:
                raise ValueError(f"{topic}: the key is {key!r}; by the contract it is {key_field}, {expected!r}")
            key = expected
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, value)
        return None if key is None else _text(key), prefix + body.getvalue()

    return encode


def _text(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()

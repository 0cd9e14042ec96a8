"""``millstream chaos poison``: a real worker reads malformed messages; then the contract is fixed and redrive runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from millstream.adapters.embedded import endpoints
from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.dead_letters import Selection, digest_of
from millstream.adapters.kafka.producer import open_producer
from millstream.adapters.telemetry.process_usage import usage_of
from millstream.app.dead_letter_admin import DeadLetterAdmin
from millstream.app.setup import initialise
from millstream.app.worker_processes import WorkerProcess, run_command, running_worker
from millstream.errors import Stop
from millstream.settings import Settings, load_settings
from millstream.topology import SCHEMAS
from millstream_lab.bench.sides import own_environ, own_environment
from millstream_lab.chaos.poison_ledger import DUPLICATE, Ledger
from millstream_lab.chaos.poison_messages import Message as Poison
from millstream_lab.chaos.poison_messages import Poisoner
from millstream_lab.chaos.poison_oracle import Fault, Oracle
from millstream_lab.chaos.poison_outcomes import Expected, Outcomes, Place, check
from millstream_lab.chaos.poison_plan import PoisonPlan, PoisonReport
from millstream_lab.chaos.poison_repo import LATENESS_MS, LONGEST_MS, PoisonRepo, relaxed, write_repo
from millstream_lab.chaos.poison_schemas import Writers, writers_of

_QUIET_S: Final = 2.0
_STALLED_S: Final = 45.0
_FIXED_MAX_BYTES: Final = 15_000_000
Track = Callable[[str, int], Callable[[int], None]]


@contextmanager
def _own_stack(plan: PoisonPlan, directory: Path, say: Callable[[str], None]) -> Iterator[tuple[Settings, PoisonRepo]]:
    files = directory / "files"
    files.mkdir()
    repo = write_repo(load_settings(), plan.contract, files)
    state_dir = directory / "state"
    settings = load_settings(
        {},
        state_dir=state_dir,
        feature_repo=repo.feature_repo,
        schemas_dir=repo.schemas,
        partitions=plan.partitions,
        dead_letter_share=1.0,
    )
    with own_environment():
        try:
            endpoints.start(settings, say)
            yield settings, repo
        finally:
            endpoints.stop(settings, say)


@contextmanager
def _worker(name: str, settings: Settings, **more: str) -> Iterator[WorkerProcess]:
    environ = {
        **own_environ(),
        "MILLSTREAM_STATE_DIR": str(settings.state_dir),
        "MILLSTREAM_FEATURE_REPO": str(settings.feature_repo),
        "MILLSTREAM_SCHEMAS_DIR": str(settings.schemas_dir),
        # Three records in four are malformed on purpose: no share of them may stop the stage.
        "MILLSTREAM_DEAD_LETTER_SHARE": "1.0",
        **more,
    }
    with running_worker(name, run_command(), environ, settings.state_dir) as worker:
        yield worker


class _Run:
    """What is carried from step to step."""

    def __init__(self, plan: PoisonPlan, settings: Settings, repo: PoisonRepo, say: Callable[[str], None]) -> None:
        self.plan, self.settings, self.repo, self.say = plan, settings, repo, say
        self.kafka = {**endpoints.resolve(settings, redis=False).kafka, "log_level": "3"}
        self.writers: Writers = writers_of(repo.contract, repo.foreign)
        self.report = PoisonReport(plan)
        self.expected: dict[Place, Expected] = {}
        late = Fault("late", repo.contract["millstream"]["event_time"])
        self._ledger = Ledger(LATENESS_MS, LONGEST_MS, late)
        self._least = 0
        self._event_ids: set[object] = set()
        self.ends = dict.fromkeys(range(plan.partitions), 0)

    def oracle(self, contract: Mapping[str, Any], *more: Any, max_bytes: int) -> Oracle:
        known = (self.writers.known, self.writers.foreign, self.writers.nested, *more)
        writers = {writer.fingerprint: writer.schema for writer in known}
        return Oracle(contract, writers, max_bytes, self.repo.summed)

    def expect(
        self, oracle: Oracle, kind: str, place: Place, stamp_ms: int, key: bytes | None, value: bytes | None
    ) -> None:
        """Work out what must become of a record; of one partition, in the order of offsets."""
        roles = self.repo.contract["millstream"]
        judged = oracle.judge(key, value, stamp_ms)
        event_id: object = None
        if isinstance(judged, Fault):
            outcomes = frozenset({judged})
        else:
            event_id = judged[roles["event_id"]]
            key_value, time_ms = judged[roles["key"]], judged[roles["event_time"]]
            outcomes = self._ledger.offer(place[0], key_value, event_id, time_ms)
        # The same id in two partitions may be answered twice, or once where a later hop brings both together.
        self._least += DUPLICATE not in outcomes and (event_id is None or event_id not in self._event_ids)
        self._event_ids.add(event_id)
        self.expected[place] = Expected(kind, digest_of(key, value), key is None, value is None, outcomes, event_id)
        self.ends[place[0]] = max(self.ends[place[0]], place[1] + 1)

    def publish_schema(self, *writers: Any) -> None:
        """Put Avro JSON into the `schemas` topic, as any producer may."""
        producer = Producer(self.kafka)
        for writer in writers:
            producer.produce(SCHEMAS, json.dumps(writer.schema).encode(), f"{writer.fingerprint:016x}".encode(), 0)
        if producer.flush(30):
            raise Stop("schemas were not acknowledged; the broker is away")

    def publish(self, messages: list[Poison], stamp_ms: int, oracle: Oracle) -> None:
        """Publish, and expect an outcome of each."""
        producer = open_producer(self.kafka)
        places: list[Place | None] = [None] * len(messages)

        def delivered(number: int) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    raise Stop(f"the broker refused {messages[number].kind!r}: {error.str()}")
                places[number] = (message.partition() or 0, message.offset() or 0)

            return report

        for number, message in enumerate(messages):
            while True:
                try:
                    producer.produce(
                        self.repo.topic, message.value, message.key, on_delivery=delivered(number), timestamp=stamp_ms
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
        if producer.flush(60):
            raise Stop("messages were not acknowledged; the broker is away")
        for message, place in sorted(zip(messages, places, strict=True), key=lambda each: each[1] or (0, 0)):
            assert place is not None
            self.expect(oracle, message.kind, place, stamp_ms, message.key, message.value)

    def settle(self, found: Outcomes, worker: WorkerProcess, progress: Callable[[int], None], quiet_s: float) -> None:
        """Follow the outcomes until all are there that must come, and then none for a while."""
        moved_s = time.monotonic()
        while True:
            if found.collect(0.2):
                moved_s = time.monotonic()
                progress(found.total)
            worker.check()
            still_s = time.monotonic() - moved_s
            if found.total >= self._least and still_s >= quiet_s:
                return
            if still_s > _STALLED_S:
                self.report.wrong.append(
                    f"{self._least - found.total} outcomes are lost: none came for {still_s:.0f} s"
                )
                self._least = found.total
                return


def run_poison(
    plan: PoisonPlan, directory: Path, say: Callable[[str], None], track: Track, began_ms: int | None = None
) -> PoisonReport:
    """Publish, check, fix the contract, redrive, check again.

    Parameters
    ----------
    directory : Path
        Empty; for servers, contracts and feature repo.
    say, track : callables
        Told each step; asked for a progress callback per counted step.
    began_ms : int or None
        What event times are relative to; default: now.

    Raises
    ------
    Misconfigured, Retry, Stop
        A step could not be done at all, such as when the worker ended.
    """
    started_s = time.monotonic()
    now_ms = time.time_ns() // 1_000_000 if began_ms is None else began_ms
    with _own_stack(plan, directory, say) as (settings, repo):
        assembly = initialise(settings, say)
        run = _Run(plan, settings, repo, say)
        with closing(Outcomes(run.kafka, assembly)) as found:
            _poison(run, found, now_ms, track)
            _fix(run, found, track)
            run.report.rows, wrong = check(run.expected, found)
            run.report.wrong += wrong
            run.report.cut = sum(
                dead_letter.cut for dead_letters in found.dead_letters.values() for dead_letter in dead_letters
            )
    run.report.seconds = time.monotonic() - started_s
    return run.report


def _poison(run: _Run, found: Outcomes, now_ms: int, track: Track) -> None:
    plan, report = run.plan, run.report
    run.publish_schema(run.writers.known, run.writers.foreign, run.writers.nested)
    messages = list(Poisoner(run.writers, plan.seed, now_ms).stream(plan.count))
    report.messages = len(messages)
    oracle = run.oracle(run.repo.contract, max_bytes=run.settings.max_record_bytes)
    progress = track(f"{plan.count:,} malformed messages among {len(messages) - plan.count:,} good", len(messages))
    size = -(-len(messages) // plan.rounds)
    with _worker("poisoned", run.settings) as worker:
        for start in range(0, len(messages), size):
            run.publish(messages[start : start + size], now_ms, oracle)
            run.settle(found, worker, progress, 0.0)
            report.rss_bytes.append(usage_of(worker.pid).rss_bytes)
        run.settle(found, worker, progress, _QUIET_S)


def _fix(run: _Run, found: Outcomes, track: Track) -> None:
    """Relax the contract, publish the schema that was unknown, raise the size limit, and send those letters back."""
    report, repo = run.report, run.repo
    contract, what, reason = relaxed(repo.contract)
    fixed = {reason, "unknown-schema", "oversize"}
    report.fixed = f"{what}; one schema published; up to {_FIXED_MAX_BYTES:,} bytes"
    repo.write(contract)
    run.publish_schema(run.writers.unpublished)
    oracle = run.oracle(contract, run.writers.unpublished, max_bytes=_FIXED_MAX_BYTES)
    meant = {
        dead_letter.id: (place, dead_letter)
        for place, dead_letters in found.dead_letters.items()
        for dead_letter in dead_letters
        if dead_letter.fault.reason in fixed
    }
    kinds = {
        (run.expected[place].digest, dead_letter.value_is_null): run.expected[place].kind
        for place, dead_letter in meant.values()
    }
    with _worker("fixed", run.settings, MILLSTREAM_MAX_RECORD_BYTES=str(_FIXED_MAX_BYTES)) as worker:
        desk = DeadLetterAdmin(run.settings, report.wrong.append)
        selection = Selection(ids=frozenset(meant))
        progress = track("sending dead letters back", len(meant))
        sent = desk.redrive(selection, lambda done, _total: progress(done))
        again = desk.redrive(selection, lambda _done, _total: None)
        report.redriven.update(dead_letter.reason for dead_letter in sent.sent)
        if {dead_letter.id for dead_letter in sent.sent} != set(meant) or again.sent or again.already != len(meant):
            report.wrong.append(
                f"of {len(meant)} letters {len(sent.sent)} were sent back, {len(sent.gone)} are gone; "
                f"a second redrive sent {len(again.sent)}"
            )
        returned: Counter[bytes] = Counter()
        for partition, end in list(run.ends.items()):
            for messages in read_committed(run.kafka, repo.topic, partition, end, None):
                for message in messages:
                    key, value = message.key(), message.value()
                    digest = digest_of(key, value)
                    returned[digest] += 1
                    kind = kinds.get((digest, value is None), "from nowhere")
                    place, stamp_ms = (partition, message.offset() or 0), message.timestamp()[1]
                    run.expect(oracle, f"redriven: {kind}", place, stamp_ms, key, value)
        if returned != Counter(dead_letter.digest for _place, dead_letter in meant.values()):
            report.wrong.append("what was sent back is not, byte for byte, what the letters held")
        run.settle(found, worker, track("outcomes of what was sent back", found.total + len(meant)), _QUIET_S)

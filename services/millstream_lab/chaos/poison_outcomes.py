"""The outcome of each message as the topics show it, compared with the expected one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from millstream.adapters.kafka.client import PASSING, client_logger, raise_for
from millstream.adapters.kafka.dead_letters import DeadLetter, digest_of
from millstream.adapters.kafka.topics import partition_counts
from millstream.app.assembly import Assembly
from millstream.core.avro.decode import RecordReader
from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED
from millstream_lab.chaos.poison_ledger import ANSWERED, DUPLICATE
from millstream_lab.chaos.poison_oracle import Fault

Place = tuple[int, int]
_MOST_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Expected:
    """A message in the event topic, and what may become of it (one outcome of these).

    Parameters
    ----------
    kind : str
        What was done to it; of a redriven one, ``redriven: `` and that.
    digest : bytes
        Of key and value.
    key_is_null, value_is_null : bool
        Which the digest does not distinguish from empty.
    outcomes : frozenset of Fault
        `ANSWERED`, `DUPLICATE`, or a dead letter's reason and field.
    event_id : object
        Where it is an event, else None.
    """

    kind: str
    digest: bytes
    key_is_null: bool
    value_is_null: bool
    outcomes: frozenset[Fault]
    event_id: object = None


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter, as much as is compared."""

    fault: Fault
    digest: bytes
    key_is_null: bool
    value_is_null: bool
    cut: bool
    id: str


@dataclass
class Observed:
    """What became of messages, by their place in the event topic.

    Parameters
    ----------
    answers : counter of place
        Records in `SCORED`.
    scored_ids, predicted_ids : counter of bytes
        Message keys, which are event ids, in `SCORED` and `PREDICTIONS`.
    dead_letters : dict of place to list of DeadLetterRow
    strays : list of str
        Sentences on what belongs to no message.
    """

    answers: Counter[Place] = field(default_factory=Counter)
    scored_ids: Counter[bytes] = field(default_factory=Counter)
    predicted_ids: Counter[bytes] = field(default_factory=Counter)
    dead_letters: dict[Place, list[DeadLetterRow]] = field(default_factory=lambda: defaultdict(list))
    strays: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Answers and dead letters seen."""
        return self.answers.total() + sum(map(len, self.dead_letters.values()))


class Outcomes(Observed):
    """Follows `SCORED`, `PREDICTIONS` and `DEAD_LETTERS`, committed records only; `close` it.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings.
    assembly : Assembly
        Whose stages write there.
    """

    def __init__(self, kafka: Mapping[str, str], assembly: Assembly) -> None:
        super().__init__()
        resolve, stages = assembly.resolver(), assembly.topology.stages
        (last,) = (plan for plan in stages if plan.last)
        self._scored = RecordReader(last.output_schema, resolve)
        self._dead = RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve)
        self._hops = {plan.input: RecordReader(plan.input_schema, resolve) for plan in stages if not plan.first}
        self._consumer = Consumer(
            {
                "group.id": "millstream.poison",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": 16_777_216,
                "queued.max.messages.kbytes": 32_768,
                **kafka,
                "logger": client_logger,
            }
        )
        counts = partition_counts(kafka, [SCORED, PREDICTIONS, DEAD_LETTERS])
        self._consumer.assign([TopicPartition(topic, p, 0) for topic, n in counts.items() for p in range(n)])

    def collect(self, timeout_s: float) -> int:
        """Read what is there; return how many records that were."""
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(5000, timeout=0)]
        by_topic: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            error = message.error()
            if error is None:
                by_topic[message.topic() or ""].append(message)
            elif error.code() not in PASSING and error.code() != KafkaError._PARTITION_EOF:
                raise_for(error, "following the outcomes")
        for topic, found in by_topic.items():
            {SCORED: self._answered, PREDICTIONS: self._predicted, DEAD_LETTERS: self._turned_away}[topic](found)
        return sum(map(len, by_topic.values()))

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _answered(self, messages: Sequence[Message]) -> None:
        batch = self._scored.decode([message.value() for message in messages], _MOST_BYTES).batch
        places = (batch.columns["source_partition"].tolist(), batch.columns["source_offset"].tolist())
        self.answers.update(zip(*places, strict=True))
        self.scored_ids.update(message.key() or b"" for message in messages)

    def _predicted(self, messages: Sequence[Message]) -> None:
        self.predicted_ids.update(message.key() or b"" for message in messages)

    def _turned_away(self, messages: Sequence[Message]) -> None:
        batch = self._dead.decode([message.value() for message in messages], _MOST_BYTES).batch
        columns = [
            [
                None if null else cell
                for null, cell in zip(batch.is_null(name), batch.columns[name].tolist(), strict=True)
            ]
            for name in DeadLetter.__slots__
        ]
        for dead_letter in (DeadLetter(*cells) for cells in zip(*columns, strict=True)):
            if dead_letter.id != f"{dead_letter.topic}-{dead_letter.partition}-{dead_letter.offset}":
                self.strays.append(f"dead letter {dead_letter.id!r} is of another place")
            place = self._place(dead_letter)
            digest = dead_letter.whole_sha256 or digest_of(dead_letter.key, dead_letter.value)
            cut = bool(dead_letter.whole_sha256)
            fault = Fault(dead_letter.reason, dead_letter.field, dead_letter.detail)
            self.dead_letters[place].append(
                DeadLetterRow(fault, digest, dead_letter.key is None, dead_letter.value is None, cut, dead_letter.id)
            )

    def _place(self, dead_letter: DeadLetter) -> Place:
        """Return where in the event topic a letter's record came from, through hops."""
        if dead_letter.topic not in self._hops:
            return dead_letter.partition, dead_letter.offset
        batch = self._hops[dead_letter.topic].decode([dead_letter.value], _MOST_BYTES).batch
        return int(batch.columns["source_partition"][0]), int(batch.columns["source_offset"][0])


@dataclass
class Row:
    """One kind of message in the report."""

    sent: int = 0
    answered: int = 0
    dropped: int = 0
    dead: int = 0
    wrong: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def check(expected: Mapping[Place, Expected], found: Observed) -> tuple[dict[str, Row], list[str]]:
    """Return the table by kind, and a sentence for each message whose outcome is not the one it should have."""
    rows: dict[str, Row] = defaultdict(Row)
    wrong = list(found.strays)
    by_id = Counter(each.event_id for each in expected.values() if ANSWERED in each.outcomes)
    for place, message in expected.items():
        row = rows[message.kind]
        row.sent += 1
        answers, dead_letters = found.answers[place], found.dead_letters.get(place, [])
        row.answered += answers
        row.dead += len(dead_letters)
        row.dropped += not answers and not dead_letters
        row.reasons.update(dead_letter.fault.reason for dead_letter in dead_letters)
        outcomes = message.outcomes
        if ANSWERED in outcomes and by_id[message.event_id] > 1:
            # Sound twice in different partitions, so that whichever hop brings them together answers the first.
            outcomes = outcomes | {DUPLICATE}
        problem = _problem(message, outcomes, answers, dead_letters)
        if problem:
            row.wrong += 1
            wrong.append(f"{message.kind} at {place[0]}@{place[1]}: {problem}")
    for place in [*found.answers, *found.dead_letters]:
        if place not in expected:
            wrong.append(f"an outcome of {place[0]}@{place[1]}, where nothing was published")
    if found.scored_ids != found.predicted_ids:
        wrong.append("the events in scored and in predictions are not the same")
    ids = {str(each.event_id).encode() for each in expected.values() if each.outcomes == {ANSWERED}}
    wrong += [f"event {event!r} has no prediction" for event in sorted(ids - set(found.predicted_ids))]
    most = Counter({str(event_id).encode(): n for event_id, n in by_id.items()})
    wrong += [f"event {event!r} has {n} predictions" for event, n in found.predicted_ids.items() if n > most[event]]
    return dict(rows), wrong


def _problem(message: Expected, outcomes: frozenset[Fault], answers: int, dead_letters: Sequence[DeadLetterRow]) -> str:
    """Return what is wrong with one message's outcomes, or nothing."""
    if answers + len(dead_letters) > 1:
        return f"{answers} answers and {len(dead_letters)} dead letters"
    seen = ANSWERED if answers else dead_letters[0].fault if dead_letters else DUPLICATE
    if seen not in outcomes:
        wanted_text = " or ".join(sorted(f"{each.reason} {each.field}".strip() for each in outcomes))
        seen_text = "no outcome" if seen == DUPLICATE else f"{seen.reason} {seen.field}".strip()
        return f"{seen_text} ({seen.detail}), should be {wanted_text}"
    if dead_letters:
        dead_letter = dead_letters[0]
        nulls = (dead_letter.key_is_null, dead_letter.value_is_null) == (message.key_is_null, message.value_is_null)
        # A letter written at a later hop holds that hop's record, not the one published.
        if seen.reason != "late" and (dead_letter.digest != message.digest or not nulls):
            return "the dead letter holds other bytes"
    return ""

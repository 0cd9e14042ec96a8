"""Label-derived features: replayed ones are what the definition says, live ones are the same, whatever crashes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from cards import DAY_MS, events, published, topology, view
from fakes_ledger_store import FakeLedgerStore
from fakes_online_view import FakeOnlineView
from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.app.assembly import Assembly, assemble
from millstream.app.label_stages import join_stage
from millstream.app.late_labels import Labels
from millstream.app.publishing import label_shape
from millstream.app.replay_labels import Late, late_labels
from millstream.app.replaying import History
from millstream.cli.replay import run_replay
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.declaration import Aggregate, View
from millstream.core.windows.store import WindowStore
from millstream.errors import Misconfigured
from millstream.ports import ViewRows
from millstream.runtime.bootstrap import seed
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.settings import load_settings
from millstream.stages.featurize.labels import LabelFeatures, LabelLookup
from millstream.testing.faults import crash
from millstream.topology import LABELS, SCORED

NEVER_MS = 1 << 60
DELAY_MS = 7 * DAY_MS
COUNT = 3_000
STEP_MS = 1_200_000
FEATURES = tuple(
    f"terminal_risk__terminal_{what}_{days}d" for days in (1, 7, 30) for what in ("count_labels", "fraud_share")
)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(load_settings({}, state_dir=tmp_path_factory.mktemp("labels")))


@pytest.fixture(scope="module")
def stream() -> tuple[Batch, np.ndarray]:
    """Seven weeks of events, a little out of order, and their labels; one in twenty has none."""
    batch, rng = events(COUNT, seed=3, customers=15, step_ms=STEP_MS), np.random.default_rng(3)
    label = (rng.random(COUNT) < 0.2).astype(np.float64)
    label[rng.random(COUNT) < 0.05] = np.nan
    return batch, label


def features(scored: Batch) -> dict[int, list[float]]:
    """Return the label-derived features of each event, NaN for null."""
    columns = [scored.as_floats(name).tolist() for name in FEATURES]
    return dict(zip(scored.columns["transaction_id"].tolist(), map(list, zip(*columns, strict=True)), strict=True))


def defined(batch: Batch, label: np.ndarray, known_at_ms: np.ndarray) -> dict[int, list[float]]:
    """Return them by their definition: of the terminal, what became known in the window that ends with the event."""
    times_ms, terminals = batch.columns["event_time_ms"], batch.columns["terminal_id"]
    found = {}
    for row, event in enumerate(batch.columns["transaction_id"].tolist()):
        mine = (terminals == terminals[row]) & ~np.isnan(label) & (known_at_ms <= times_ms[row])
        row_features = []
        for days in (1, 7, 30):
            inside = label[mine & (known_at_ms > times_ms[row] - days * DAY_MS)]
            row_features += [float(len(inside)), float(inside.mean()) if len(inside) else math.nan]
        found[event] = row_features
    return found


def same(got: dict[int, list[float]], wanted: dict[int, list[float]]) -> None:
    assert got.keys() == wanted.keys()
    for event, row in wanted.items():
        assert np.array_equal(got[event], row, equal_nan=True), event


def test_a_replay_gives_what_the_definition_says(assembly: Assembly, stream: tuple[Batch, np.ndarray]) -> None:
    batch, label = stream
    labels = Labels.after(label, batch.columns["event_time_ms"], DELAY_MS)
    history = History(assembly)
    got: dict[int, list[float]] = {}
    for rows in np.array_split(np.arange(COUNT), 3):
        got |= features(history.feed(batch.take(rows), labels.take(rows)).scored)
    wanted = defined(batch, label, labels.known_at_ms)
    same(got, wanted)
    assert sum(row[1] > 0 for row in wanted.values()) > 300, "there is something to know"


def test_short_delays_are_as_exact(assembly: Assembly, stream: tuple[Batch, np.ndarray]) -> None:
    """A label that becomes known while the very batch of its event is replayed is told all the same."""
    batch, label = stream[0].take(np.arange(800)), stream[1][:800]
    labels = Labels.after(label, batch.columns["event_time_ms"], 8 * STEP_MS)
    same(features(History(assembly).feed(batch, labels).scored), defined(batch, label, labels.known_at_ms))


def test_without_labels_nothing_is_known(assembly: Assembly) -> None:
    got = features(History(assembly).feed(events(50)).scored)
    assert {tuple(map(str, row)) for row in got.values()} == {("0.0", "nan") * 3}


class Live:
    """Both stages and the join on one log in memory, told what a producer and a label source publish."""

    def __init__(self, assembly: Assembly, partitions: int = 2) -> None:
        self.assembly = assembly
        self.broker = MemoryBroker(partitions)
        self.view = FakeOnlineView()
        self._ledgers = {partition: FakeLedgerStore() for partition in range(partitions)}
        self.loops: list[StageLoop] = []
        self.start()

    def start(self) -> None:
        """Begin, or begin anew after a crash: nothing is closed."""
        for loop in self.loops:
            crash(loop)
        resolve = self.assembly.resolver()
        works: list[Work] = [self.assembly.stage(plan, resolve) for plan in self.assembly.topology.stages]
        works.append(join_stage(self.assembly, resolve, lambda partition: self._ledgers[partition]))
        self.loops = []
        for work in works:
            limits = LoopLimits(500, NEVER_MS)
            log = MemoryLog(self.broker, work.name)
            loop = StageLoop(
                work, log, limits, DeadLetterLimit(1.0, 10), Straight(self.view), Unobserved(), now_ms=lambda: 0
            )
            loop.start()
            self.loops.append(loop)

    def publish(self, *outputs: Output) -> None:
        """Publish, and run until nothing is left to do."""
        for output in outputs:
            self.broker.append(output)
        while any(self._turn(loop) for loop in self.loops):
            pass

    def _turn(self, loop: StageLoop) -> bool:
        batches = loop.poll(0.0)
        if batches:
            loop.handle(batches)
        return bool(batches)

    def scored(self) -> Batch:
        values = [entry[2] for partition in self.broker.log(SCORED) for entry in partition.entries]
        reader = RecordReader(self.assembly.topology.stages[-1].output_schema, self.assembly.resolver())
        return reader.decode(values, BIG_RECORD_BYTES).batch


class Straight:
    """A `View` that writes at once."""

    def __init__(self, online: FakeOnlineView) -> None:
        self._online = online

    def refill_required(self, source: str) -> str | None:
        return None

    def offer(self, rows: list[ViewRows]) -> None:
        self._online.write(rows)

    def refilled(self, epoch: str, source: str) -> None:
        raise AssertionError("no refill is asked for")


def said(assembly: Assembly, ids: np.ndarray, label: np.ndarray, known_at_ms: np.ndarray, kind: str = "new") -> Output:
    """Return labels as their source publishes them; NaN is null."""
    texts = np.array([str(each) for each in ids.tolist()], dtype=object)
    columns = {
        "event_id": texts,
        "label": np.nan_to_num(label),
        "known_at_ms": known_at_ms,
        "source": np.full(len(ids), "bank", dtype=object),
        "kind": np.full(len(ids), kind, dtype=object),
    }
    values = RecordWriter(assembly.contracts[LABELS].schema).encode(
        Batch(len(ids), columns, {"label": np.isnan(label)})
    )
    stamps: list[int] = known_at_ms.tolist()
    return Output(LABELS, [text.encode() for text in texts], values, timestamps_ms=stamps)


def live(assembly: Assembly, batch: Batch, label: np.ndarray, crash: bool) -> Live:
    """Publish day by day, what became known of earlier days first; crash now and then, checkpointed or not."""
    running = Live(assembly)
    times_ms = batch.columns["event_time_ms"]
    order = np.argsort(times_ms + DELAY_MS, kind="stable")
    order = order[~np.isnan(label[order])]
    until_ms = int(times_ms[0])
    for day, rows in enumerate(np.split(np.arange(batch.length), range(60, batch.length, 60))):
        newest_ms = int(times_ms[rows].max())
        known_ms = times_ms[order] + DELAY_MS
        due = order[(known_ms > until_ms) & (known_ms <= newest_ms)]
        until_ms = max(until_ms, newest_ms)
        ids = batch.columns["transaction_id"][due]
        running.publish(said(assembly, ids, label[due], times_ms[due] + DELAY_MS))
        running.publish(published(batch.take(rows)))
        if crash and day % 3 == 2:
            if day % 2:
                for loop in running.loops:
                    loop.checkpoint(loop.partitions)
            running.start()
    return running


def publish_slowly(running: Live, batch: Batch) -> None:
    """Publish so that no partition runs ahead of another by more than events may be late."""
    for rows in np.array_split(np.arange(batch.length), 10):
        running.publish(published(batch.take(rows)))


@pytest.mark.parametrize("crash", [False, True])
def test_live_features_are_the_replayed_ones(assembly: Assembly, stream: tuple[Batch, np.ndarray], crash: bool) -> None:
    batch, label = stream
    running = live(assembly, batch, label, crash)
    labels = Labels.after(label, batch.columns["event_time_ms"], DELAY_MS)
    replayed = features(History(assembly).feed(batch, labels).scored)
    served = features(running.scored())
    same(served, replayed)
    _check_online(running, batch, label)


def _check_online(running: Live, batch: Batch, label: np.ndarray) -> None:
    """The online rows are as of each terminal's newest event or label."""
    times_ms, terminals = batch.columns["event_time_ms"], batch.columns["terminal_id"]
    known = times_ms + DELAY_MS
    told = ~np.isnan(label) & (known <= times_ms.max())
    for terminal in np.unique(terminals).tolist():
        mine = terminals == terminal
        as_of = max([int(times_ms[mine].max()), *known[mine & told].tolist()])
        wanted: list[float] = []
        for days in (1, 7, 30):
            inside = label[mine & told & (known > as_of - days * DAY_MS)]
            wanted += [float(len(inside)), float(inside.mean()) if len(inside) else math.nan]
        stamp, row = running.view.rows["terminal_risk", terminal]
        assert np.array_equal(row, wanted, equal_nan=True), terminal
        assert stamp >= as_of * 1000


def test_corrections_replace_and_retractions_take_back(assembly: Assembly) -> None:
    """Three events of one terminal, known after a day; then one is corrected and one taken back."""
    start = int(events(1).columns["event_time_ms"][0])
    batch = Batch(
        7,
        {
            "transaction_id": np.arange(7),
            "customer_id": np.arange(7),
            "terminal_id": np.ones(7, dtype=np.int64),
            "event_time_ms": start + DAY_MS * np.array([0, 0, 0, 2, 3, 4, 40]),
            "amount": np.ones(7),
        },
    )
    running = Live(assembly)
    first, known = batch.take(np.arange(3)), start + DAY_MS * np.array([1, 1, 1])
    running.publish(published(first))
    running.publish(said(assembly, np.arange(3), np.array([1.0, 0.0, 0.0]), known))
    running.publish(published(batch.take(np.array([3]))))
    running.publish(said(assembly, np.array([1]), np.array([1.0]), known[:1] + DAY_MS * 3 // 2, "correction"))
    running.publish(published(batch.take(np.array([4]))))
    running.publish(said(assembly, np.array([0]), np.array([math.nan]), known[:1] + 2 * DAY_MS, "retraction"))
    running.start()
    running.publish(published(batch.take(np.array([5, 6]))))
    got = {event: row[4:] for event, row in features(running.scored()).items()}
    assert got[3] == [3.0, 1 / 3]
    assert got[4] == [3.0, 2 / 3]
    assert got[5] == [2.0, 1 / 2]
    assert got[6][0] == 0.0


def test_state_is_rebuilt_when_label_windows_change(assembly: Assembly, stream: tuple[Batch, np.ndarray]) -> None:
    """Rows that another declaration wrote cannot be read: labels are read anew, events are not."""
    batch, label = stream[0].take(np.arange(600)), stream[1][:600]
    labels = Labels.after(label, batch.columns["event_time_ms"], DAY_MS)
    running = Live(assembly)
    publish_slowly(running, batch)
    known = np.flatnonzero(~np.isnan(label))
    running.publish(said(assembly, batch.columns["transaction_id"][known], label[known], labels.known_at_ms[known]))
    for loop in running.loops:
        loop.close()
    for partition in running.broker.log("terminal.changelog"):
        partition.entries = [
            (stamp, key, value.replace(b'[\\"labels\\"', b'[\\"other\\"') if key == b"m" and value else value)
            for stamp, key, value in partition.entries
        ]
    running.start()
    later = stream[0].take(np.arange(600, 1200))
    publish_slowly(running, later)
    asked = features(running.scored())
    label = np.concatenate([label, np.full(600, np.nan)])
    times_ms = stream[0].columns["event_time_ms"][:1200]
    wanted = defined(stream[0].take(np.arange(1200)), label, times_ms + DAY_MS)
    same({event: asked[event] for event in range(600, 1200)}, {event: wanted[event] for event in range(600, 1200)})


def test_the_command_replays_a_file_with_its_labels(
    assembly: Assembly, stream: tuple[Batch, np.ndarray], tmp_path: Path
) -> None:
    batch, label = stream[0].take(np.arange(1200)), stream[1][:1200]
    table = pl.DataFrame(dict(batch.columns)).with_columns(
        pl.Series("is_fraud", label).fill_nan(None).cast(pl.Int8), pl.lit(2).alias("scenario")
    )
    table.write_parquet(tmp_path / "history.parquet")
    late = late_labels(assembly, tmp_path / "history.parquet", None, "7d")
    assert late == Late("is_fraud", DELAY_MS)
    run_replay(assembly, tmp_path / "history.parquet", tmp_path / "out", Console(quiet=True), late=late)
    written = pl.read_parquet(tmp_path / "out" / "scored.parquet")
    got = dict(zip(written["transaction_id"], written.select(FEATURES).fill_null(float("nan")).rows(), strict=True))
    wanted = defined(batch, label, batch.columns["event_time_ms"] + DELAY_MS)
    same({event: list(map(float, row)) for event, row in got.items()}, wanted)
    assert late_labels(assembly, tmp_path / "history.parquet", "none", "7d") is None
    table.drop("is_fraud").write_parquet(tmp_path / "unlabelled.parquet")
    with pytest.raises(Misconfigured, match=r"'is_fraud'.*terminal_risk.*--label-column"):
        late_labels(assembly, tmp_path / "unlabelled.parquet", None, "7d")
    with pytest.raises(Misconfigured, match="'scenario' holds other things"):
        run_replay(
            assembly,
            tmp_path / "history.parquet",
            tmp_path / "out",
            Console(quiet=True),
            late=Late("scenario", DELAY_MS),
        )


def test_ids_of_labels_are_ingested_as_the_events_contract_has_them(assembly: Assembly) -> None:
    shape = label_shape(assembly.settings, assembly.contracts[LABELS])
    assert shape.whole_ids
    assert [each.kind for each in shape.fields[:2]] == ["long", "boolean"]


def test_a_replay_reads_labels_beside_its_events_each_from_its_known_time_on(
    assembly: Assembly, stream: tuple[Batch, np.ndarray], tmp_path: Path
) -> None:
    """Known times of their own, given as datetimes in microseconds; one in ten has none and takes the delay."""
    batch, label = stream[0].take(np.arange(900)), stream[1][:900]
    rng = np.random.default_rng(8)
    known_at_ms = batch.columns["event_time_ms"] + rng.integers(0, 10 * DAY_MS, 900)
    timeless = rng.random(900) < 0.1
    pl.DataFrame(dict(batch.columns)).write_parquet(tmp_path / "history.parquet")
    known = pl.Series(known_at_ms).cast(pl.Datetime("ms")).cast(pl.Datetime("us"))
    table = pl.DataFrame(
        {
            "event_id": [f"{each}" for each in batch.columns["transaction_id"].tolist()],
            "label": pl.Series(label).fill_nan(None).cast(pl.Boolean),
            "known_at_ms": known.set(pl.Series(timeless), None),
        }
    )
    strangers = pl.DataFrame(
        {"event_id": ["77000000", "x"], "label": [True, True], "known_at_ms": [known[0], known[0]]}
    )
    pl.concat([table, strangers.cast(table.schema)]).sample(fraction=1, shuffle=True, seed=1).write_parquet(
        tmp_path / "labels.parquet"
    )
    late = late_labels(assembly, tmp_path / "history.parquet", None, "7d", tmp_path / "labels.parquet")
    run_replay(assembly, tmp_path / "history.parquet", tmp_path / "out", Console(quiet=True), late=late)
    written = pl.read_parquet(tmp_path / "out" / "scored.parquet")
    got = dict(zip(written["transaction_id"], written.select(FEATURES).fill_null(float("nan")).rows(), strict=True))
    wanted = defined(batch, label, np.where(timeless, batch.columns["event_time_ms"] + DELAY_MS, known_at_ms))
    same({event: list(map(float, row)) for event, row in got.items()}, wanted)
    notes: list[str] = []
    assert late is not None
    assert late.beside is not None
    late.beside.report(notes.append)
    assert notes[0].startswith("1 labels have no usable event id and are left out: row ")
    assert "found 'x', which is no long" in notes[0]
    assert notes[1].startswith("1 of ")


def test_corrections_and_retractions_beside_a_replay_hold_from_when_they_are_known(
    assembly: Assembly, tmp_path: Path
) -> None:
    """As `test_corrections_replace_and_retractions_take_back`, of a file; and a retraction that brings a label back."""
    start = int(events(1).columns["event_time_ms"][0])
    days = np.array([0, 0, 0, 2, 3, 4, 5, 40])
    columns = {
        "transaction_id": np.arange(8),
        "customer_id": np.arange(8),
        "terminal_id": np.ones(8, dtype=np.int64),
        "event_time_ms": start + DAY_MS * days,
        "amount": np.ones(8),
    }
    pl.DataFrame(columns).write_csv(tmp_path / "history.csv")
    said_rows = [
        (0, 1, 1.0, "new", "bank"), (1, 0, 1.0, "new", "bank"), (2, 0, 1.0, "new", "bank"),
        (1, 1, 2.5, "correction", "bank"), (0, None, 3.0, "retraction", "bank"), (2, 1, 4.5, "new", "shop"),
        (2, None, 4.75, "retraction", "shop"),
    ]  # fmt: skip
    lines = "".join(
        f"{event},{'' if label is None else label},{start + int(DAY_MS * day)},{source},{kind}\n"
        for event, label, day, kind, source in said_rows
    )
    (tmp_path / "labels.csv").write_text("event_id,label,known_at_ms,source,kind\n" + lines)
    late = late_labels(assembly, tmp_path / "history.csv", None, "7d", tmp_path / "labels.csv")
    run_replay(assembly, tmp_path / "history.csv", tmp_path / "out", Console(quiet=True), late=late)
    written = pl.read_parquet(tmp_path / "out" / "scored.parquet")
    got = dict(zip(written["transaction_id"], written.select(FEATURES).rows(), strict=True))
    assert got[3][4:] == (3, 1 / 3)
    assert got[4][4:] == (2, 1 / 2)  # the correction made two positive of three, the retraction took one of them
    assert got[5][4:] == (2, 1 / 2)
    assert got[6][4:] == (2, 1 / 2)
    assert got[7][4] == 0


def test_a_fresh_cluster_goes_on_from_a_replay(assembly: Assembly, stream: tuple[Batch, np.ndarray]) -> None:
    """Seeded from a replay, live stages serve as if it had gone on, labels that were still to come included."""
    batch, label = stream[0].take(np.arange(1200)), stream[1][:1200]
    labels = Labels.after(label, batch.columns["event_time_ms"], DELAY_MS)
    first, second = np.arange(900), np.arange(900, 1200)
    history = History(assembly)
    history.feed(batch.take(first), labels.take(first))
    history.tell_all()
    running = Live(assembly)
    for stage in history.replay.stages:
        ends = {partition: dict.fromkeys(stage.inputs, 0) for partition in range(2)}
        assert seed(MemoryLog(running.broker, "seed"), stage, 2, ends) > 0
    running.start()
    for rows in np.array_split(second, 5):
        running.publish(published(batch.take(rows)))
    wanted = defined(batch, label, labels.known_at_ms)
    same(features(running.scored()), {event: wanted[event] for event in second.tolist()})


def test_a_retraction_takes_back_the_event_s_own_columns_as_well() -> None:
    aggregates = tuple(Aggregate(f"{c}_sum", "float64", c, "sum", DAY_MS) for c in ("amount", "label"))
    risk = View("risk", "terminal", "terminal_id", "int64", "examples", "label_known_at_ms", 0, aggregates, True)
    plan = topology(view("spent", "customer"), view("taken", "terminal"), risk).stages[1].labels
    assert plan is not None
    events_store = WindowStore((view("taken", "terminal"),))
    windows = LabelFeatures(plan, "transaction_id", events_store)
    said = Batch(
        2,
        {
            "transaction_id": np.array([1, 2]),
            "terminal_id": np.array([7, 7]),
            "amount": np.array([5.0, 6.0]),
            "label": np.array([1.0, 0.0]),
            "label_known_at_ms": np.array([10, 11]),
            "revision": np.array([1, 1]),
        },
    )
    asking = LabelLookup(np.array([7]), np.array([12]), np.array([12]))
    assert windows.fold(0, events_store, asking, said)[1].reals.tolist() == [[11.0, 1.0]]
    taken_back = Batch(2, {**said.columns, "revision": np.array([2, 2])}, {"label": np.array([True, False])})
    assert windows.fold(0, events_store, asking, taken_back)[1].reals.tolist() == [[6.0, 0.0]]

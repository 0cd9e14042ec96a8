"""What people say of events: late, twice, contradicting each other, corrected and taken back."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.contracts import Contract

DAY_MS = 86_400_000
PRECEDENCE = "investigator, bank"
Said = tuple[int, float | None, int, str, str]
"""Event, label, when it became known, source, kind."""


def statements(batch: Batch, rng: random.Random) -> tuple[list[Said], dict[int, tuple[float, int]]]:
    """Return what is said of transactions, shuffled, and the label and its time that must be believed in the end."""
    said: list[Said] = []
    believed: dict[int, tuple[float | None, int]] = {}
    for event, time_ms in zip(
        batch.columns["transaction_id"].tolist(), batch.columns["event_time_ms"].tolist(), strict=True
    ):
        chance = rng.random()
        if chance < 0.1:
            continue
        label = float(rng.random() < 0.3)
        said.append((event, label, time_ms + 7 * DAY_MS, "bank", "new"))
        believed[event] = label, said[-1][2]
        if chance < 0.2:
            said.append(said[-1])
        elif chance < 0.3:
            said.append((event, 1 - label, time_ms + 9 * DAY_MS, "bank", "correction"))
            believed[event] = 1 - label, said[-1][2]
        elif chance < 0.35:
            said.append((event, None, time_ms + 10 * DAY_MS, "bank", "retraction"))
            believed[event] = None, said[-1][2]
        elif chance < 0.45:
            # The investigator has precedence, whatever the bank says later.
            said.append((event, 1 - label, time_ms + 3 * DAY_MS, "investigator", "new"))
            believed[event] = 1 - label, said[-1][2]
    rng.shuffle(said)
    return said, {event: (label, at_ms) for event, (label, at_ms) in believed.items() if label is not None}


def history(said: Sequence[Said], event: int) -> list[tuple[int, float | None]]:
    """Return what was believed of an event from when on, in plain words: the most trusted source's last word."""
    trusted = PRECEDENCE.split(", ")
    mine = sorted((each for each in set(said) if each[0] == event), key=lambda each: each[2])
    found: list[tuple[int, float | None]] = []
    last: dict[str, Said] = {}
    for each in mine:
        last[each[3]] = each
        standing = [last[source][1] for source in trusted if source in last and last[source][4] != "retraction"]
        found.append((each[2], standing[0] if standing else None))
    return found


def label_records(contracts: Mapping[str, Contract], said: Sequence[Said]) -> tuple[list[bytes], list[bytes]]:
    """Return keys and values for the topic of labels."""
    columns = {
        "event_id": np.array([str(each[0]) for each in said], dtype=object),
        "label": np.array([0.0 if each[1] is None else each[1] for each in said]),
        "known_at_ms": np.array([each[2] for each in said]),
        "source": np.array([each[3] for each in said], dtype=object),
        "kind": np.array([each[4] for each in said], dtype=object),
    }
    nulls = {"label": np.array([each[1] is None for each in said])}
    values = RecordWriter(contracts["labels"].schema).encode(Batch(len(said), columns, nulls))
    return [str(each[0]).encode() for each in said], values

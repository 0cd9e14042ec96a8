"""One suite for the ledger's store, on a dictionary and on RocksDB."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes_ledger_store import FakeLedgerStore
from millstream.adapters.files.ledger_store import LedgerMemory, RocksLedgerStore
from millstream.errors import Retry, Stop
from millstream.ports import LedgerStore

MEMORY = LedgerMemory(16 << 20)
Reopen = Callable[[], LedgerStore]


@pytest.fixture(params=["fake", "rocksdb"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Yield what closes the store, if it is open, and opens it again."""
    opened: list[LedgerStore] = [FakeLedgerStore()]
    if request.param == "fake":
        yield lambda: opened[0]
        return
    opened.clear()

    def again() -> LedgerStore:
        while opened:
            opened.pop().close()
        opened.append(RocksLedgerStore(tmp_path / "ledger", MEMORY))
        return opened[0]

    yield again
    while opened:
        opened.pop().close()


def test_what_was_written_with_its_offsets_is_there_after_reopening(reopen: Reopen) -> None:
    store = reopen()
    assert store.offsets() == {}
    store.write([b"a", b"b", b"c"], [b"1", b"", b"\0"], [], {"scored": 3})
    store.write([b"a"], [b"2"], [b"c", b"never"], {"labels": 1 << 40})
    for opened in (lambda: store, reopen):
        each = opened()
        assert each.read([b"c", b"a", b"b", b"a"]) == [None, b"2", b"", b"2"]
        assert each.read([]) == []
        assert each.offsets() == {"scored": 3, "labels": 1 << 40}


def test_a_key_both_deleted_and_put_is_put(reopen: Reopen) -> None:
    store = reopen()
    store.write([b"a"], [b"1"], [], {})
    store.write([b"a"], [b"2"], [b"a"], {})
    assert store.read([b"a"]) == [b"2"]


def test_rows_are_scanned_in_order_of_their_bytes(reopen: Reopen) -> None:
    store = reopen()
    keys = [b"t" + bytes([i, j]) for i in (255, 0, 7) for j in (9, 0)]
    store.write([*keys, b"u", b"s"], [b"x"] * 8, [], {"scored": 1})
    assert [key for key, _ in store.scan(b"t", b"u", 100)] == sorted(keys)
    assert store.scan(b"t\0\1", b"t\7\1", 100) == [(b"t\0\t", b"x"), (b"t\7\0", b"x")]
    assert len(store.scan(b"t", b"u", 4)) == 4


def test_clearing_loses_rows_and_offsets(reopen: Reopen) -> None:
    store = reopen()
    store.write([b"a"], [b"1"], [], {"scored": 3})
    store.clear()
    store = reopen()
    assert store.offsets() == {}
    assert store.read([b"a"]) == [None]


def test_a_store_is_open_once_and_one_of_another_layout_starts_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RocksLedgerStore(tmp_path, MEMORY)
    store.write([b"a"], [b"1"], [], {"scored": 3})
    with pytest.raises(Retry, match="still open"):
        RocksLedgerStore(tmp_path, MEMORY)
    store.close()
    monkeypatch.setattr("millstream.adapters.files.ledger_store.LAYOUT", "other")
    store = RocksLedgerStore(tmp_path, MEMORY)
    assert store.offsets() == {}
    store.close()


def test_a_directory_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    RocksLedgerStore(tmp_path, MEMORY).close()
    (tmp_path / "CURRENT").write_text("nonsense")
    with pytest.raises(Stop, match="Delete the directory"):
        RocksLedgerStore(tmp_path, MEMORY)


_WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from millstream.adapters.files.ledger_store import LedgerMemory, RocksLedgerStore

store = RocksLedgerStore(Path(sys.argv[1]), LedgerMemory(16 << 20))
for offset in range(1, 200):
    store.write([b"%d" % offset, b"last"], [b"x" * 1000, b"%d" % offset], [], {"scored": offset})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_rows_and_offsets_that_agree(tmp_path: Path) -> None:
    writer = subprocess.run([sys.executable, "-c", _WRITE_AND_DIE, str(tmp_path)], check=False)
    assert writer.returncode == -signal.SIGKILL
    store = RocksLedgerStore(tmp_path, MEMORY)
    assert store.offsets() == {"scored": 199}
    assert store.read([b"last", b"1", b"199"]) == [b"199", b"x" * 1000, b"x" * 1000]
    store.close()

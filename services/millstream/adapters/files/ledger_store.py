"""The label ledger's rows on disk: one RocksDB per partition, all of a worker within one bound of memory.

The write-ahead log is on and not synced: a killed process loses nothing, a machine that loses power loses the newest
writes, and is then simply behind, which recovery makes up for. Index and filter blocks live inside the block cache
and memtables are charged to it, so memory does not grow with the ledger.

References
----------
.. [1] RocksDB wiki, "Memory usage in RocksDB", "Partitioned Index Filters", "Write Buffer Manager".
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from millstream.core.ledger.rows import LAYOUT
from millstream.errors import Retry, Stop

_OFFSET: Final = b"\0offset:"
_LAYOUT: Final = b"\0layout"
_PAST_OFFSETS: Final = b"\0offset;"
_MB: Final = 1 << 20


class LedgerMemory:
    """What all ledgers of one process may take of memory together.

    Parameters
    ----------
    bytes_ : int
        For cached blocks, their indices and filters, and rows not yet flushed; >= 16 MB.
    """

    def __init__(self, bytes_: int = 256 * _MB) -> None:
        import rocksdict

        if bytes_ < 16 * _MB:
            raise ValueError(f"the ledger needs at least 16 MB of memory, not {bytes_} bytes")
        self.cache = rocksdict.Cache(bytes_)
        self.buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(bytes_ // 3, False, self.cache)
        self.buffer_bytes = bytes_ // 8


class RocksLedgerStore:
    """A `millstream.ports.LedgerStore` on RocksDB.

    Parameters
    ----------
    path : Path
        Directory of this partition; made if absent, emptied if an earlier release wrote it.
    memory : LedgerMemory
        Shared by all stores of the process.
    layout : int
        How often the topics were rescaled; a directory of another layout holds other keys and is emptied.

    Raises
    ------
    Retry
        Another process still has it open (it is handing the partition over).
    Stop
        It cannot be opened; the text says what to do.
    """

    def __init__(self, path: Path, memory: LedgerMemory, layout: int = 0) -> None:
        self._path = path
        # As earlier versions wrote it while topics could not be rescaled.
        self._layout = f"{LAYOUT}@{layout}".encode() if layout else LAYOUT.encode()
        self._memory = memory
        self._db = self._open()
        if self._db.get(_LAYOUT) != self._layout:
            self.clear()

    def _open(self) -> Any:
        import rocksdict

        self._path.mkdir(parents=True, exist_ok=True)
        try:
            return rocksdict.Rdict(str(self._path), _options(self._memory))
        except Exception as error:  # RocksDB's errors have no class of their own
            if "lock" in str(error).lower():
                raise Retry(f"the ledger in {self._path} is still open elsewhere: {error}") from error
            raise Stop(
                f"the ledger in {self._path} cannot be opened: {error}. Delete the directory to have it rebuilt from "
                f"the retained topics"
            ) from error

    def offsets(self) -> dict[str, int]:
        """See `millstream.ports.LedgerStore`."""
        rows = self.scan(_OFFSET, _PAST_OFFSETS, 1000)
        return {key[len(_OFFSET) :].decode(): int(value) for key, value in rows}

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `millstream.ports.LedgerStore`."""
        if not keys:
            return []
        # In order of keys, neighbours share index, filter and data blocks.
        order = sorted(range(len(keys)), key=keys.__getitem__)
        found: list[bytes | None] = [None] * len(keys)
        for place, value in zip(order, self._db.get([keys[place] for place in order]), strict=True):
            found[place] = value
        return found

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """See `millstream.ports.LedgerStore`."""
        rows: list[tuple[bytes, bytes]] = []
        each = self._db.iter()
        each.seek(start)
        while len(rows) < limit and each.valid() and each.key() < end:
            rows.append((each.key(), each.value()))
            each.next()
        return rows

    def write(
        self, keys: Sequence[bytes], values: Sequence[bytes], deleted: Sequence[bytes], offsets: Mapping[str, int]
    ) -> None:
        """See `millstream.ports.LedgerStore`."""
        import rocksdict

        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key in deleted:
            delete(key)
        for key, value in zip(keys, values, strict=True):
            put(key, value)
        for topic, offset in offsets.items():
            put(_OFFSET + topic.encode(), b"%d" % offset)
        try:
            self._db.write(batch)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise Stop(f"the ledger in {self._path} cannot be written: {error}. Is the disk full?") from error

    def clear(self) -> None:
        """See `millstream.ports.LedgerStore`."""
        self._db.close()
        shutil.rmtree(self._path)
        self._db = self._open()
        self._db.put(_LAYOUT, self._layout)

    def close(self) -> None:
        """See `millstream.ports.LedgerStore`."""
        self._db.close()

    def disk_bytes(self) -> int:
        """Return the size of the files, those of the write-ahead log included."""
        return sum(each.stat().st_size for each in self._path.iterdir() if each.is_file())


def _options(memory: LedgerMemory) -> Any:
    import rocksdict

    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(memory.cache)
    table.set_block_size(8 << 10)
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(4096)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_top_level_index_and_filter(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(False)  # pinned blocks would not count against the bound
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_manager(memory.buffers)
    options.set_write_buffer_size(memory.buffer_bytes)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)  # readers of open files are memory too
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_target_file_size_base(32 * _MB)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_bottommost_compression_type(rocksdict.DBCompressionType.zstd())
    # Forgetting goes along the index from its old end: files that are mostly tombstones are compacted at once.
    options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MB)
    options.set_max_total_wal_size(256 * _MB)
    return options

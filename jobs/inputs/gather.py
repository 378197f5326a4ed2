"""Read the source of a job's rows once, check it, and make the parts that the job keeps.

Memory holds a batch of rows at a time; the rest is on this machine's disk, in a directory that is
gone afterwards. Nothing is written to the store before the source is known to be usable.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.storage.job_rows import CLASS_COLUMN, SEED_COLUMN, InputsBegun, digest_of
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import Inputs
from jobs.inputs.check import LINE_COLUMN, Check
from jobs.inputs.parquet import parquet_rows
from jobs.inputs.rows import CUSTOM_ID, Fault, RawRows
from jobs.inputs.source import format_of, opened
from jobs.inputs.spool import Ids, Spool
from jobs.inputs.texts import csv_rows, jsonl_rows
from jobs.resolve import ModelFacts, RowFacts
from jobs.spec import InputFormat, InputsSpec

logger = logging.getLogger(__name__)

PART_BYTES = 64 << 20  # in memory, of rows of average size
MOST_PART_ROWS, LEAST_PART_ROWS = 1 << 20, 1 << 10
GROUP_ROWS = 1 << 14  # a shard reads the row groups that it needs
MOST_FAULTS = 100_000  # that are kept one by one
_NAMED = 10  # of those, that a refusal names

_READERS: dict[InputFormat, Callable[[BinaryIO, InputsSpec], Iterator[RawRows]]] = {
    "csv": csv_rows, "jsonl": jsonl_rows, "parquet": parquet_rows,
}  # fmt: skip


@dataclass(frozen=True)
class Gathered:
    """A job's rows, good and checked, as files on this machine.

    faults: of the first bad rows, by line; there are ``inputs.bad_rows`` in all. parts: in order.
    """

    facts: RowFacts
    faults: tuple[Fault, ...]
    parts: tuple[Path, ...]

    def upload(self, store: ObjectStore, job_id: str) -> None:
        """Write them to the store, as the job's. May be repeated."""
        layout, digest = JobLayout(job_id), self.facts.inputs.digest
        begun = InputsBegun(at=utc_now())
        store.put(layout.inputs_begun(digest), begun.model_dump_json().encode())
        for number, part in enumerate(self.parts):
            store.put(layout.input_part(digest, number), part.read_bytes())
        if self.faults:
            lines = [json.dumps(asdict(found), ensure_ascii=False) for found in self.faults]
            if (more := self.facts.inputs.bad_rows - len(lines)) > 0:
                lines.append(json.dumps({"more": more}))
            store.put(layout.input_errors, ("\n".join(lines) + "\n").encode())


@contextmanager
def gathered(inputs: InputsSpec, store: ObjectStore, model: ModelFacts) -> Iterator[Gathered]:
    """The rows of the source; their files are gone afterwards.

    Raises UserError for a source that cannot be read or has no good row, and, where the job is
    strict, for any bad row.
    """
    read = _READERS[format_of(inputs)]
    with _on_disk() as name:
        folder = Path(name)
        found = _Faults(strict=inputs.strict, source=inputs.source)
        spool, ids = _spooled(folder, inputs, store, Check(model.labels, model.num_classes),
                              read, found)  # fmt: skip
        try:
            if ids is not None:
                ids.find_repeated()
                found.add(ids.faults(MOST_FAULTS), ids.count())
            found.refuse_if_strict()
            good = spool.rows - (0 if ids is None else ids.count())
            if not good:
                raise UserError(f"inputs: {inputs.source} has no good row{found.named()}")
            per_row = max(1, spool.size_bytes // spool.rows)
            part_rows = min(max(PART_BYTES // per_row, LEAST_PART_ROWS), MOST_PART_ROWS)
            kept = _without(spool.tables(), iter(()) if ids is None else ids.places())
            parts = _Parts(folder, part_rows)
            for table in kept:
                parts.add(table)
            parts.finish()
        finally:
            if ids is not None:
                ids.close()
        if found.total:
            logger.warning(
                "%s of the rows of %s are bad, and left out%s",
                f"{found.total:,}", inputs.source, found.named(),
            )  # fmt: skip
        facts = RowFacts(
            Inputs(
                digest=digest_of(parts.digests),
                part_rows=part_rows,
                columns=tuple(n for n in spool.schema.names if n not in _OWN),
                seeded=SEED_COLUMN in spool.schema.names,
                bad_rows=found.total,
            ),
            good,
            tuple(sorted(parts.classes)),
        )
        yield Gathered(facts, tuple(found.first), tuple(parts.paths))


@contextmanager
def _on_disk() -> Iterator[str]:
    """A directory for a while. Raises UserError where its disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="un0-inputs-") as name:
            yield name
    except (OSError, duckdb.Error) as error:
        if getattr(error, "errno", errno.ENOSPC) != errno.ENOSPC:
            raise
        raise UserError(
            f"inputs: rows are kept in {tempfile.gettempdir()} until they are checked: {error}; "
            "make room there, or set TMPDIR to a larger disk"
        ) from error


_OWN = (LINE_COLUMN, CLASS_COLUMN, SEED_COLUMN)


def _spooled(
    folder: Path,
    inputs: InputsSpec,
    store: ObjectStore,
    check: Check,
    read: Callable[[BinaryIO, InputsSpec], Iterator[RawRows]],
    found: _Faults,
) -> tuple[Spool, Ids | None]:
    """The rows that are good by themselves; the ids among them, if there are any."""
    spool, ids = Spool(folder), None
    with opened(inputs, store) as source:
        for raw in read(source, inputs):
            table, faults = check.good(raw)
            found.add(faults, len(faults))
            spool.add(table)
            if CUSTOM_ID in table.column_names and table.num_rows:
                ids = ids or Ids(folder)
                ids.add(table)
    return spool, ids


@dataclass
class _Faults:
    """Bad rows: the first of them, and how many there are."""

    strict: bool
    source: str
    first: list[Fault] = field(default_factory=list)
    total: int = 0

    def add(self, faults: list[Fault], count: int) -> None:
        self.total += count
        self.first += faults[: max(0, 2 * MOST_FAULTS - len(self.first))]
        self.first.sort(key=lambda fault: fault.line)
        del self.first[MOST_FAULTS:]
        if self.total >= _NAMED:
            self.refuse_if_strict()

    def refuse_if_strict(self) -> None:
        if self.strict and self.total:
            raise UserError(
                f"inputs: {self.source} has bad rows, and the job is strict: correct them, or "
                f"leave strict out{self.named()}"
            )

    def named(self) -> str:
        lines = [
            f"\n  line {fault.line}: {fault.column + ': ' if fault.column else ''}"
            f"{'' if fault.value is None else repr(fault.value) + ': '}{fault.reason}"
            for fault in self.first[:_NAMED]
        ]
        more = f"\n  and {self.total - _NAMED:,} more" if self.total > _NAMED else ""
        return ":" + "".join(lines) + more if lines else ""


def _without(tables: Iterator[pa.Table], places: Iterator[NDArray[np.int64]]) -> Iterator[pa.Table]:
    """The tables without the rows at these places among all, which ascend."""
    position = 0
    next_places = next(places, None)
    for table in tables:
        stop = position + table.num_rows
        keep = np.ones(table.num_rows, np.bool_)
        while next_places is not None:
            cut = int(np.searchsorted(next_places, stop))
            keep[next_places[:cut] - position] = False
            next_places = next_places[cut:]
            if len(next_places):
                break
            next_places = next(places, None)
        position = stop
        yield table if keep.all() else table.filter(pa.array(keep))


class _Parts:
    """Writes rows as files of so many each."""

    def __init__(self, folder: Path, part_rows: int) -> None:
        self._folder, self._part_rows = folder, part_rows
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None
        self._written = 0  # rows of the part that is being written
        self.paths: list[Path] = []
        self.digests: list[str] = []
        self.classes: set[int] = set()

    def add(self, table: pa.Table) -> None:
        self.classes.update(np.unique(table[CLASS_COLUMN].to_numpy()).tolist())
        self._waiting.append(table.drop_columns([LINE_COLUMN]))
        while sum(waiting.num_rows for waiting in self._waiting) >= self._next:
            self._write(self._next)

    def finish(self) -> None:
        while rows := sum(waiting.num_rows for waiting in self._waiting):
            self._write(min(rows, self._next))
        self._close()

    @property
    def _next(self) -> int:
        """Rows of the next row group."""
        return min(GROUP_ROWS, self._part_rows - self._written)

    def _write(self, rows: int) -> None:
        whole = pa.concat_tables(self._waiting)
        group = whole.slice(0, rows).combine_chunks()
        self._waiting = [whole.slice(rows)] if whole.num_rows > rows else []
        if self._writer is None:
            self.paths.append(self._folder / f"{len(self.paths):08d}.rows")
            self._writer = pq.ParquetWriter(self.paths[-1], group.schema, compression="zstd")
        self._writer.write_table(group, row_group_size=rows)
        self._written += rows
        if self._written >= self._part_rows:
            self._close()

    def _close(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer, self._written = None, 0
        with self.paths[-1].open("rb") as file:
            self.digests.append(hashlib.file_digest(file, "sha256").hexdigest())

"""Checked rows on this machine's disk, between the reading of a source and the job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.inputs.check import LINE_COLUMN
from jobs.inputs.rows import CUSTOM_ID, Fault, fault

_MEMORY = "512MB"  # of the search for ids that are there twice; more goes to disk
_FETCHED = 1 << 16
_THREADS = 2  # each needs its share of that


class Spool:
    """Tables, one file each, whose columns may differ: of one that lacks some they are null."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fields: dict[str, pa.DataType] = {}
        self._files = 0
        self.rows = 0
        self.size_bytes = 0  # in memory

    @property
    def schema(self) -> pa.Schema:
        """Of all tables together. A column of whole numbers in one and of others in another table
        has the latters' type."""
        return pa.schema(list(self._fields.items()))

    def add(self, table: pa.Table) -> None:
        for column in table.schema:
            known = self._fields.get(column.name)
            if known is None or pa.types.is_floating(column.type):
                self._fields[column.name] = column.type
        if not table.num_rows:
            return
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            pa.OSFile(str(self._path(self._files)), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema, options=options) as writer,
        ):
            writer.write_table(table)
        self._files += 1
        self.rows += table.num_rows
        self.size_bytes += table.nbytes

    def tables(self) -> Iterator[pa.Table]:
        """All of them in order, with the columns of ``schema``. Each is deleted once it is read."""
        schema = self.schema
        for number in range(self._files):
            path = self._path(number)
            with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as reader:
                table = reader.read_all()
            path.unlink()
            columns = [
                table[field.name].cast(field.type, safe=False)
                if field.name in table.column_names
                else pa.nulls(table.num_rows, field.type)
                for field in schema
            ]
            yield pa.table(columns, schema=schema)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.arrow"


@dataclass(frozen=True)
class Repeated:
    """Rows whose custom_id an earlier one has: their places among all, and the faults."""

    places: NDArray[np.int64]
    faults: list[Fault]


class Ids:
    """The custom_ids of all rows, in a database on disk: they may be more than memory holds."""

    def __init__(self, folder: Path) -> None:
        self._database = duckdb.connect(str(folder / "ids.duckdb"))
        self._database.execute(f"set memory_limit = '{_MEMORY}'")
        self._database.execute(f"set threads = {_THREADS}")
        self._database.execute("set temp_directory = $folder", {"folder": str(folder / "spill")})
        self._database.execute("set enable_progress_bar = false")  # it goes to stdout
        self._database.execute("set preserve_insertion_order = false")
        self._database.execute("create table ids (place bigint, line bigint, id varchar)")
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        places = pa.array(np.arange(self._rows, self._rows + table.num_rows), pa.int64())
        batch = pa.table({"place": places, "line": table[LINE_COLUMN], "id": table[CUSTOM_ID]})
        self._rows += table.num_rows
        self._database.register("batch", batch)
        self._database.execute("insert into ids select place, line, id from batch")
        self._database.unregister("batch")

    def find_repeated(self) -> None:
        """Look for them; once, after all rows were added."""
        self._database.execute(
            "create table firsts as select id, min(place) as place, min(line) as line from ids "
            "group by id having count(*) > 1"
        )
        self._database.execute(
            "create table repeated as select ids.place, ids.line, ids.id, firsts.line as first "
            "from ids join firsts on ids.id = firsts.id where ids.place > firsts.place"
        )

    def count(self) -> int:
        found = self._database.execute("select count(*) from repeated").fetchone()
        return int(found[0]) if found else 0

    def faults(self, most: int) -> list[Fault]:
        """Of the first of them."""
        rows = self._database.execute(
            f"select line, id, first from repeated order by place limit {most}"
        ).fetchall()
        return [
            fault(line, CUSTOM_ID, text, f"line {first} has the same custom_id; it must be unique")
            for line, text, first in rows
        ]

    def places(self) -> Iterator[NDArray[np.int64]]:
        """Of all of them, ascending, in pieces."""
        found = self._database.execute("select place from repeated order by place")
        while rows := found.fetchmany(_FETCHED):
            yield np.array(rows, np.int64)[:, 0]

    def close(self) -> None:
        self._database.close()

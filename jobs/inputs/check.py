"""Which rows are good: their classes, seeds and ids, one batch after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage.job_rows import CLASS_COLUMN, OWN_PREFIX, SEED_COLUMN
from jobs.inputs.rows import CUSTOM_ID, Fault, RawRows, fault
from un0.catalog import class_resolver
from un0.errors import InputError

LINE_COLUMN = f"{OWN_PREFIX}line"
MAX_VALUE = 64 << 10  # bytes that a row may carry in one column
MAX_ID = 1024
_KNOWN_CLASSES = 100_000  # written forms that are remembered
_DIGITS = re.compile(r"\s*[0-9]{1,20}\s*")


class Check:
    """Checks the rows of one source against a model's classes."""

    def __init__(self, labels: Sequence[str], num_classes: int) -> None:
        self._resolve: Callable[[Any], int] = class_resolver(labels, num_classes)
        self._known: dict[tuple[type, Any], int | str] = {}

    def good(self, raw: RawRows) -> tuple[pa.Table, list[Fault]]:
        """The good rows, and what is wrong with the others.

        Columns: LINE_COLUMN, CLASS_COLUMN, SEED_COLUMN if there are any, CUSTOM_ID if it has
        those, and what is carried.
        """
        faults = list(raw.faults)
        bad = np.zeros(len(raw.lines), np.bool_)

        def reject(at: int, column: str | None, value: Any, reason: str) -> None:
            if not bad[at]:
                faults.append(fault(raw.lines[at], column, value, reason))
            bad[at] = True

        columns: dict[str, Any] = {LINE_COLUMN: pa.array(raw.lines, pa.int64())}
        classes = list(map(self._class_of, raw.classes))
        for at, found in enumerate(classes):
            if isinstance(found, str):
                reject(at, "class", raw.classes[at], found)
        ids = [found if isinstance(found, int) else None for found in classes]
        columns[CLASS_COLUMN] = pa.array(ids, pa.int64())
        seeds = raw.seeds if any(seed is not None for seed in raw.seeds) else []
        for name, values, read, kind in (
            (SEED_COLUMN, seeds, _seed_of, pa.uint64()),
            (CUSTOM_ID, raw.custom_ids, _id_of, pa.string()),
        ):
            if values:
                kept, wrong = _each(values, read)
                for at, reason in wrong:
                    reject(at, name.removeprefix(OWN_PREFIX), values[at], reason)
                columns[name] = pa.array(kept, kind)
        for name in raw.carried.column_names:
            for at in _too_long(raw.carried[name]):
                reject(int(at), name, None, f"more than {MAX_VALUE:,} bytes; shorten it")
            columns[name] = raw.carried[name]
        table = pa.table(columns)
        return (table.filter(pa.array(~bad)) if bad.any() else table), faults

    def _class_of(self, value: Any) -> int | str:
        """The class id, or what is wrong."""
        key = (type(value), value)
        try:
            found = self._known.get(key)
        except TypeError:  # a list, say
            return "no class; give a label or an id"
        if found is None:
            found = self._looked_up(value)
            if len(self._known) < _KNOWN_CLASSES:
                self._known[key] = found
        return found

    def _looked_up(self, value: Any) -> int | str:
        if value is None:
            return "has no class"
        if not isinstance(value, int | str):
            return "no class; give a label or an id"
        try:
            return self._resolve(value)
        except InputError as error:
            return str(error)[:300]


def _each(
    values: list[Any], read: Callable[[Any], tuple[Any, str]]
) -> tuple[list[Any], list[tuple[int, str]]]:
    kept, wrong = [], []
    for at, value in enumerate(values):
        found, reason = read(value)
        if reason:
            wrong.append((at, reason))
        kept.append(found)
    return kept, wrong


def _seed_of(value: Any) -> tuple[int | None, str]:
    if value is None:
        return None, ""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None, "no seed; give a whole number from 0 to 2**64 - 1, or none"
    if not 0 <= value < 2**64:
        return None, "out of range; give a seed from 0 to 2**64 - 1"
    return value, ""


def _id_of(value: Any) -> tuple[str | None, str]:
    if value is None or value == "":
        return None, "has no custom_id; give each row one"
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None, "no custom_id; give a text or a whole number"
    text = str(value)
    if len(text) > MAX_ID:  # before encoding: it may be long
        return None, f"longer than {MAX_ID} characters; shorten it"
    return text, ""


def _too_long(column: pa.ChunkedArray) -> Any:
    """Places of values with more than MAX_VALUE bytes."""
    if not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
        return ()
    over = pc.fill_null(pc.greater(pc.binary_length(column), MAX_VALUE), False)
    return np.flatnonzero(over.to_numpy())

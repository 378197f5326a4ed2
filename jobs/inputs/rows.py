"""What readers of sources hand on, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cluster.errors import UserError
from cluster.storage.job_rows import OWN_PREFIX
from cluster.storage.schemas import IMAGE_SCHEMA
from jobs.spec import InputsSpec

BATCH_ROWS = 16_384
BATCH_BYTES = 32 << 20  # of source: a batch with long rows has fewer
MAX_LINE = 4 << 20  # bytes or characters of a row
MAX_COLUMNS = 200
CUSTOM_ID = "custom_id"
_SHOWN = 200  # characters of a value that an error shows
_NAME_LENGTH = 128


@dataclass(frozen=True)
class Fault:
    """A row that the job is without. line: the first of its lines in the source, from 1; of
    Parquet, its row."""

    line: int
    column: str | None
    value: str | None
    reason: str


def fault(line: int, column: str | None, value: Any, reason: str) -> Fault:
    """With the value as text that is not too long, and that UTF-8 can hold."""
    text = None if value is None else value if isinstance(value, str) else repr(value)
    if text is not None and len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    if text is not None:
        text = text.encode(errors="replace").decode()
    return Fault(line, column, text, reason.encode(errors="replace").decode())


@dataclass(frozen=True)
class Roles:
    """Columns with a meaning, by their names in the source."""

    class_: str
    seed: str | None
    custom_id: str | None


@dataclass(frozen=True)
class RawRows:
    """Rows as they were read. lines: of each. classes, seeds, custom_ids: Python's values, None
    where there is none; empty where the source has no such column. carried: the other columns.
    faults: of lines that are no rows."""

    lines: list[int]
    classes: list[Any]
    seeds: list[Any]
    custom_ids: list[Any]
    carried: pa.Table
    faults: list[Fault] = field(default_factory=list)


def roles_of(inputs: InputsSpec, names: Sequence[str]) -> Roles:
    """Which columns are what. Raises UserError if one that is named or needed is not there."""
    for role, name in (
        ("class", inputs.class_), ("seed", inputs.seed), ("custom_id", inputs.custom_id),
    ):  # fmt: skip
        if name is not None and name not in names:
            raise UserError(f"inputs: {role}: {_no_column(inputs.source, name, names)}")
    class_ = inputs.class_ or next((name for name in ("class", "label") if name in names), None)
    if class_ is None:
        raise UserError(
            f"inputs: {_no_column(inputs.source, 'class', names)}: say which holds the classes, "
            "with class: NAME"
        )
    seed = inputs.seed or ("seed" if "seed" in names else None)
    custom_id = inputs.custom_id or (CUSTOM_ID if CUSTOM_ID in names else None)
    roles = Roles(class_, seed, custom_id)
    given = [name for name in (class_, seed, custom_id) if name is not None]
    if len(set(given)) < len(given):
        raise UserError(f"inputs: class, seed and custom_id must be columns of their own: {given}")
    return roles


def check_names(roles: Roles, names: Sequence[str]) -> list[str]:
    """The names of the columns that are carried. Raises UserError if images cannot have them."""
    carried = [name for name in names if name not in (roles.class_, roles.seed, roles.custom_id)]
    if len(carried) > MAX_COLUMNS:
        raise UserError(
            f"inputs: {len(carried)} columns beside class, seed and custom_id; images carry "
            f"{MAX_COLUMNS} at most: leave some out"
        )
    taken = {name.casefold() for name in IMAGE_SCHEMA.names}
    if roles.custom_id is not None:
        taken.add(CUSTOM_ID)
    for name in carried:
        folded = name.casefold()
        if folded in taken:
            raise UserError(
                f"inputs: the column {name!r} cannot be carried: images have another of that name; "
                "rename it in the source"
            )
        odd = not name.isprintable() or len(name) > _NAME_LENGTH
        if not name or odd or folded.startswith(("image.", OWN_PREFIX)):
            raise UserError(
                f"inputs: {name[:_NAME_LENGTH]!r} is no name for a column of images; give one of 1 "
                f"to {_NAME_LENGTH} printable characters that does not begin with image. or "
                f"{OWN_PREFIX}"
            )
        taken.add(folded)
    return carried


def _no_column(source: str, name: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    return f"{source} has no column {name!r}; it has {shown}"

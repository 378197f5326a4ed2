"""Sums over the energy log by any number of keys in one scan; unknown values are counted apart.

Additive quantities only: what follows from them (joules per image, bounds, null or not) is
worked out once everything is added up, so that a ratio is always a ratio of sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import add, attrgetter

import pyarrow as pa

from jobs.report.carbon import Intensity
from jobs.report.rows import Rows


@dataclass(frozen=True, slots=True)
class Part:
    """Sums of one bucket. All fields are additive.

    known_mj: of the rows whose energy is known; the others are missing_rows.
    low_mj, high_mj: bounds of known_mj; a measured row adds its value. unbounded_rows are
        estimates without bounds.
    active_mj: above the idle power of the device, of the active_rows that know it.
    row_ns, missing_ns: the rows' time, and that of the missing ones.
    carbon: energy x the grid's intensity at the time, in mJ x ug/kWh, so that it stays exact. Of
        uncovered_rows the intensity is not known.
    """

    rows: int = 0
    missing_rows: int = 0
    images: int = 0
    row_ns: int = 0
    missing_ns: int = 0
    known_mj: int = 0
    measured_mj: int = 0
    estimated_mj: int = 0
    estimated_rows: int = 0
    low_mj: int = 0
    high_mj: int = 0
    unbounded_rows: int = 0
    active_mj: int = 0
    active_rows: int = 0
    carbon: int = 0
    carbon_low: int = 0
    carbon_high: int = 0
    uncovered_rows: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(*map(add, _values(self), _values(other)))


_values = attrgetter(*(field.name for field in fields(Part)))
NOTHING = Part()
UNKNOWN = Part(rows=1, missing_rows=1)
Parts = Mapping[str, Part]
"""By bucket."""


def total(parts: Iterable[Part]) -> Part:
    """All of them together."""
    return sum(parts, NOTHING)


def merged(groups: Iterable[Parts]) -> dict[str, Part]:
    """Bucket by bucket, all of the groups together."""
    out: defaultdict[str, Part] = defaultdict(Part)
    for parts in groups:
        for bucket, part in parts.items():
            out[bucket] += part
    return dict(out)


_SCAN = """
select {dim} as dim, {key} as key, bucket, quality, {slot_us} as slot_us,
    count(*) as rows,
    count(energy_mj) as known_rows,
    sum(images) as images,
    sum(duration_ns) as ns,
    sum(energy_mj) as mj,
    sum(energy_low_mj) as low_mj,
    count(energy_low_mj) as low_rows,
    sum(energy_high_mj) as high_mj,
    count(energy_high_mj) as high_rows,
    sum(energy_active_mj) as active_mj,
    count(energy_active_mj) as active_rows
from (select *, {slot}, {keys} from energy)
group by grouping sets ({sets})
"""

# In the order of the fields of Part
_FOLD = """
with priced as (
    select cube.*, case when slot_us < until_us then ug_per_kwh end as ug_per_kwh,
        quality = 'missing' as missing,
        quality = 'estimated' as estimated,
        case when estimated then low_mj else mj end as least_mj,
        case when estimated then high_mj else mj end as most_mj
    from cube asof left join intensity on slot_us >= from_us
)
select dim, key, bucket,
    sum(rows),
    sum(case when missing then rows else rows - known_rows end),
    sum(images),
    sum(ns),
    sum(ns) filter (missing),
    sum(mj) filter (not missing),
    sum(mj) filter (not missing and not estimated),
    sum(mj) filter (estimated),
    sum(known_rows) filter (estimated),
    sum(least_mj) filter (not missing),
    sum(most_mj) filter (not missing),
    sum(known_rows - least(low_rows, high_rows)) filter (estimated),
    sum(active_mj) filter (not missing),
    sum(active_rows) filter (not missing),
    sum(mj * ug_per_kwh) filter (not missing),
    sum(least_mj * ug_per_kwh) filter (not missing),
    sum(most_mj * ug_per_kwh) filter (not missing),
    sum(known_rows) filter (not missing and mj > 0 and ug_per_kwh is null)
from priced group by all
"""


def sums_by(
    rows: Rows, keys: Mapping[str, str], intensity: Intensity | None
) -> dict[str, dict[str | None, dict[str, Part]]]:
    """``{name: {value: {bucket: Part}}}`` of the rows, for each of the named keys.

    keys: SQL expressions over the log's columns, by name. intensity: of the grid; a row is
    charged the one in the middle of its time. None leaves every row's carbon uncovered.
    """
    names = list(keys)
    rows.gather("cube", _scan(keys, intensity))
    rows.connection.register("intensity", _spans(intensity))
    found: dict[str, dict[str | None, dict[str, Part]]] = {
        name: defaultdict(dict) for name in names
    }
    for dim, key, bucket, *values in rows.connection.execute(_FOLD).fetchall():
        found[names[dim]][key][bucket] = Part(*(int(value or 0) for value in values))
    return found


def _scan(keys: Mapping[str, str], intensity: Intensity | None) -> str:
    columns = [f"k{i}" for i in range(len(keys))]
    slot = _slot(intensity)
    traits = "bucket, quality" + (", slot" if slot else "")
    whens = [(f"when grouping({column}) = 0", column) for column in columns]
    return _SCAN.format(
        dim=f"case {' '.join(f'{when} then {i}' for i, (when, _) in enumerate(whens))} end",
        key=f"case {' '.join(f'{when} then {column}::varchar' for when, column in whens)} end",
        keys=", ".join(f"{sql} as k{i}" for i, sql in enumerate(keys.values())),
        sets=", ".join(f"({column}, {traits})" for column in columns),
        slot=f"{slot or 0} as slot",
        slot_us="slot" if slot else "0::bigint",
    )


def _slot(intensity: Intensity | None) -> str | None:
    """SQL of the time whose intensity a row is charged, as coarse as that allows; None: any."""
    if intensity is None or intensity.slot_us is None:
        return None
    origin_us, slot_us = intensity.origin_us, intensity.slot_us
    middle_us = "(epoch_us(ts_start) + duration_ns // 2000)"
    return f"(floor(({middle_us} - {origin_us}) / {slot_us})::bigint * {slot_us} + {origin_us})"


def _spans(intensity: Intensity | None) -> pa.Table:
    schema = pa.schema((name, pa.int64()) for name in ("from_us", "until_us", "ug_per_kwh"))
    spans = () if intensity is None else intensity.spans
    rows = [
        {"from_us": s.from_us, "until_us": s.until_us, "ug_per_kwh": round(s.g_per_kwh * 1e6)}
        for s in spans
    ]
    return pa.Table.from_pylist(rows, schema)

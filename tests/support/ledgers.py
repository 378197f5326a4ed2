"""Energy logs made up row by row, written to a store as a node writes them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import pyarrow as pa

from cluster.ledger.rows import MeterTotals, energy_parquet
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.storage.layout import EnergyKey, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import JobRecord

from . import jobfactory

START = datetime(2026, 1, 1, tzinfo=UTC)
H100, L4, EPYC = "NVIDIA H100 80GB HBM3", "NVIDIA L4", "AMD EPYC 9354"
Row = dict[str, Any]


def row(bucket: str, energy_mj: int | None, **changes: Any) -> Row:
    """A minute of a measured H100, beginning on 1 January 2026, unless changed.

    ``minutes`` moves it; an energy of None makes it missing.
    """
    start = changes.pop("ts_start", START) + timedelta(minutes=changes.pop("minutes", 0))
    duration_ns = changes.pop("duration_ns", 60 * 10**9)
    known = "measured_counter" if energy_mj is not None else "missing"
    settings: Row = dict.fromkeys(ENERGY_SCHEMA.names) | {
        "schema_version": 1,
        "cluster_id": "test",
        "host_name": "node-1",
        "hw_id": "GPU-1",
        "hw_type": "gpu",
        "hw_name": H100,
        "zone": "gpu",
        "ts_start": start,
        "ts_end": start + timedelta(microseconds=duration_ns // 1000),
        "duration_ns": duration_ns,
        "bucket": bucket,
        "shared": False,
        "energy_mj": energy_mj,
        "quality": known,
        "method": "test",
        "meter_epoch": 0,
    }
    assert changes.keys() <= settings.keys(), changes
    return settings | changes


def write_log(store: ObjectStore, rows: Iterable[Row], *, error_mj: int = 0) -> list[str]:
    """The keys of the files: one per day and host. error_mj: what each file's meters say more."""

    def place(row: Row) -> tuple[date, str]:
        return row["ts_start"].date(), row["host_name"]

    keys = []
    for (day, host), found in groupby(sorted(rows, key=place), place):
        of_file = list(found)
        metered: MeterTotals = Counter({("error", 0): error_mj})
        for made in of_file:
            metered[made["hw_id"], made["meter_epoch"]] += made["energy_mj"] or 0
        key = EnergyKey(day, host, "0123456789abcdef", 0, 0).key
        table = pa.Table.from_pylist(of_file, ENERGY_SCHEMA)
        store.put(key, energy_parquet(table, metered, closed=True))
        keys.append(key)
    return keys


def write_spec(
    store: ObjectStore,
    job_id: str,
    *,
    owner: str,
    model: str,
    encoding: str = "png",
    **labels: str,
) -> None:
    """A job's ``spec.json``: all that a report wants of it."""
    record = JobRecord(
        workload=jobfactory.workload(job_id, model=model, encoding=encoding),
        spec={"model": model, "count": 20, "labels": labels},
        owner=owner,
        submitted_at=jobfactory.START,
    )
    store.put(JobLayout(job_id).spec, record.model_dump_json().encode())


def fleet(days: int = 31, seed: int = 0) -> Iterator[Row]:
    """Two nodes of four H100s, one of four L4s and one without GPUs, at work for some days.

    Of every day some hours are idle, some attempts are lost, and once a meter is away.
    """
    rng = random.Random(seed)
    for day in range(days):
        morning = START + timedelta(days=day)
        for host, (hw_name, busy_w) in _GPU_NODES.items():
            for device in range(4):
                where: Row = {"host_name": host, "hw_name": hw_name, "hw_id": f"{host}-{device}"}
                for half_hour in range(48):
                    ts = morning + timedelta(minutes=30 * half_hour)
                    where |= {"ts_start": ts, "duration_ns": 1800 * 10**9}
                    yield _half_hour(rng, where, busy_w, day, device)
        for hour in range(24):
            yield _cpu_hour(rng, morning + timedelta(hours=hour))


_GPU_NODES = {"gpu-01": (H100, 640), "gpu-02": (H100, 655), "gpu-03": (L4, 71)}
_PROJECTS = ("faces", "fid-imagenet", "thumbnails", "ablation")


def _half_hour(rng: random.Random, where: Row, busy_w: int, day: int, device: int) -> Row:
    ts, host = where["ts_start"], where["host_name"]
    if (host, device, day) == ("gpu-02", 3, 17) and 10 <= ts.hour < 15:
        return row("gap", None, **where)
    daytime = 0.5 - 0.5 * math.cos(2 * math.pi * (ts.hour - 3) / 24)
    load = 0.25 if ts.weekday() >= 5 else 0.55 + 0.4 * daytime
    idle_w = busy_w * 0.17
    if rng.random() > load * (0.6 if host == "gpu-03" else 1):
        energy_mj = _mj(idle_w * rng.uniform(0.95, 1.05))
        return row("idle", energy_mj, energy_active_mj=0, **where)
    energy_mj = _mj(busy_w * rng.uniform(0.93, 1.02))
    weeks = (3, 5, 4, 9)[device]
    job_id = f"{_PROJECTS[(day // weeks + device) % 4]}-{day // weeks + 1:02d}"
    draw = rng.random()
    lost = host == "gpu-02" and draw < 0.09
    bucket = "wasted" if lost else "overhead" if draw > 0.96 else "job"
    per_image_mj = {H100: 1450, L4: 2350}[where["hw_name"]] * (1.18 if device == 3 else 1.0)
    images = round(energy_mj / (per_image_mj * rng.uniform(0.9, 1.12)))
    return row(
        bucket,
        energy_mj,
        energy_active_mj=energy_mj - _mj(idle_w),
        job_id=job_id,
        attempt_id=f"{job_id}-{ts:%d%H%M}-{device}",
        images=images if bucket == "job" else None,
        **where,
    )


def _cpu_hour(rng: random.Random, ts: datetime) -> Row:
    energy_mj = 2 * _mj(95 * rng.uniform(0.9, 1.1))
    return row(
        "job",
        energy_mj,
        quality="estimated",
        energy_low_mj=energy_mj * 48 // 100,
        energy_high_mj=energy_mj * 245 // 100,
        job_id="previews",
        images=round(energy_mj / 3100),
        ts_start=ts,
        duration_ns=3600 * 10**9,
        host_name="cpu-01",
        hw_id="host",
        hw_type="cpu",
        hw_name=EPYC,
        zone="host",
    )


def _mj(power_w: float) -> int:
    """Of half an hour."""
    return round(power_w * 1800 * 1000)

"""How long `un0 report` takes on a large energy log, and how much memory and reading.

Writes a synthetic log, by default 100 million rows: 5,000 devices, eight a node, for a month, one
file per node and day as nodes write them; then compacts it (`un0 compact`) and asks again. Every
report is a fresh process; "peak" is the memory it held, "read" what it read from files once its
modules were loaded.

    python benchmarks/report.py [--rows 100000000] [--nodes 625] [--days 30] [--cores 2]
                                [--keep DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.ledger.compaction import compact
from cluster.ledger.rows import energy_parquet
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.writer import SETTLED
from cluster.storage.layout import EnergyKey
from cluster.storage.open import open_store

START = datetime(2026, 1, 1, tzinfo=UTC)
DEVICES = 8
HARDWARE = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L4")
BUCKETS = ("job", "overhead", "wasted", "idle")
JOBS_PER_DAY = 60
COLUMNS = ("wall s", "CPU s", "peak MB", "read MB", "log MB")
WRITER = "0123456789abcdef0123456789abcdef"

# Runs the command, then reports its time and memory
_CHILD = """
import json, pathlib, resource, sys
from jobs.cli.main import app
import jobs.cli.report_output
count = lambda: int(pathlib.Path("/proc/self/io").read_text().split()[1])
before = count()
app(sys.argv[1:], standalone_mode=False)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"peak_kb": usage.ru_maxrss, "cpu_s": usage.ru_utime + usage.ru_stime,
                  "read_bytes": count() - before}), file=sys.stderr)
"""


@dataclass(frozen=True)
class Shape:
    """The log: how many nodes and days, and rows per device and day."""

    root: Path
    nodes: int
    days: int
    per_device: int

    @property
    def rows(self) -> int:
        return self.nodes * self.days * DEVICES * self.per_device


def write_day(shape: Shape, day: int) -> int:
    """The files of one day. Returns the millijoules in them."""
    return sum(write_file(shape, day, node) for node in range(shape.nodes))


def write_file(shape: Shape, day: int, node: int) -> int:
    """What one node's eight devices did in a day: work in runs, one row in ten not a job's."""
    rng = np.random.default_rng((day, node))
    rows, start = DEVICES * shape.per_device, START + timedelta(days=day)
    host = f"node-{node:04d}"
    device = np.tile(np.arange(DEVICES), shape.per_device)
    step_us = 86_400_000_000 // shape.per_device
    ts_us = int(start.timestamp() * 1e6) + np.repeat(np.arange(shape.per_device), DEVICES) * step_us
    bucket = rng.choice(4, rows, p=(0.9, 0.02, 0.02, 0.06))
    run = np.arange(rows) // 400 + node
    job = day * JOBS_PER_DAY + run % JOBS_PER_DAY
    energy_mj = rng.integers(10_000_000, 90_000_000, rows)
    none = bucket == 3
    columns: dict[str, Any] = {
        "schema_version": np.ones(rows, np.int32),
        "cluster_id": _same("cluster", rows),
        "host_name": _same(host, rows),
        "hw_id": _words(device, [f"GPU-{host}-{i}" for i in range(DEVICES)]),
        "hw_type": _same("gpu", rows),
        "hw_name": _same(HARDWARE[node % len(HARDWARE)], rows),
        "zone": _same("gpu", rows),
        "ts_start": pa.array(ts_us).cast(pa.timestamp("us", tz="UTC")),
        "ts_end": pa.array(ts_us + step_us).cast(pa.timestamp("us", tz="UTC")),
        "duration_ns": np.full(rows, step_us * 1000),
        "bucket": _words(bucket, BUCKETS),
        "shared": np.zeros(rows, bool),
        "energy_mj": energy_mj,
        "energy_active_mj": energy_mj * 8 // 10,
        "quality": _same("measured_counter", rows),
        "method": _same("nvmlDeviceGetTotalEnergyConsumption", rows),
        "meter_epoch": np.zeros(rows, np.int64),
        "counter_updates": rng.integers(500, 1500, rows),
        "job_id": _words(job, [f"job-{i:05d}" for i in range(job.max() + 1)], none),
        "shard": pa.array(np.arange(rows), mask=none),
        "attempt_id": _words(np.arange(rows), [f"{i:032x}" for i in range(rows)], none),
        "images": pa.array(energy_mj // 1500, mask=bucket != 0),
        "batch_size": np.full(rows, 1024, np.int32),
        "driver_version": _same("570.86.15", rows),
        "power_limit_mw": np.full(rows, 700_000),
    }
    table = pa.table({n: columns.get(n, pa.nulls(rows)) for n in ENERGY_SCHEMA.names})
    metered = Counter(
        {(f"GPU-{host}-{i}", 0): int(energy_mj[i::DEVICES].sum()) for i in range(DEVICES)}
    )
    path = shape.root / EnergyKey(start.date(), host, WRITER, day, 0).key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(energy_parquet(table.cast(ENERGY_SCHEMA), metered, closed=True))
    return sum(metered.values())


def _words(which: Any, words: Sequence[str], mask: Any = None) -> pa.Array:
    indices = pa.array(np.asarray(which, np.int32), mask=mask)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words)).cast(pa.string())


def _same(word: str, rows: int) -> pa.Array:
    return pa.repeat(word, rows)


@dataclass(frozen=True)
class Run:
    """One report: its JSON, and what the process took."""

    report: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_mb: float
    read_mb: float


def run(root: Path, cores: int, *args: str) -> Run:
    """``un0 report`` in a process of its own, on so many cores."""
    command = [sys.executable, "-c", _CHILD, "report", "--store", str(root), "--format", "json"]
    some = sorted(os.sched_getaffinity(0))[:cores]
    begin_s = time.perf_counter()
    done = subprocess.run(
        [*command, *args],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, some),
    )
    wall_s = time.perf_counter() - begin_s
    if done.returncode:
        sys.exit(done.stderr)
    used = json.loads(done.stderr.splitlines()[-1])
    peak_mb, read_mb = used["peak_kb"] / 1024, used["read_bytes"] / 1e6
    return Run(json.loads(done.stdout), wall_s, used["cpu_s"], peak_mb, read_mb)


def report(shape: Shape, metered_mj: int, cores: int) -> None:
    """Time the reports, check that they are right, and print the table."""
    day = f"{START + timedelta(days=shape.days // 2):%Y-%m-%d}"
    one_day = ("--since", day, "--until", day)
    cases = {
        "all, by hardware": ("--by", "hardware"),
        "all, by job": ("--by", "job"),
        "one day, by hardware": ("--by", "hardware", *one_day),
    }
    print(f"{'report':24}{'rows':>8}", *(f"{name:>8}" for name in COLUMNS))
    for name, args in cases.items():
        found = run(shape.root, cores, *args)
        log_mb = found.report["log_bytes"] / 1e6
        figures = (found.wall_s, found.cpu_s, found.peak_mb, found.read_mb, log_mb)
        cells = (f"{value:8.1f}" for value in figures)
        print(f"{name:24}{len(found.report['rows']):8}", *cells, flush=True)
        assert found.report["closure_error_mj"] == 0
        if "all" in name:
            assert round(found.report["energy_j"] * 1000) == metered_mj


@contextmanager
def directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="un0-report-") as path:
        yield Path(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--nodes", type=int, default=625, help="of eight devices each")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="write the log here, and leave it")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    per_device = max(1, round(options.rows / (options.nodes * options.days * DEVICES)))
    with directory(options.keep) as root:
        shape = Shape(root, options.nodes, options.days, per_device)
        begin_s = time.perf_counter()
        with ProcessPoolExecutor(options.cores, initializer=os.nice, initargs=(19,)) as pool:
            metered_mj = sum(pool.map(write_day, [shape] * shape.days, range(shape.days)))
        size_mb = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e6
        print(
            f"log: {shape.rows:,} rows in {shape.nodes * shape.days:,} files, {size_mb:,.0f} MB, "
            f"written in {time.perf_counter() - begin_s:.0f} s; {options.cores} cores",
            flush=True,
        )
        report(shape, metered_mj, options.cores)
        begin_s = time.perf_counter()
        later = (START + timedelta(days=options.days) + SETTLED).date()
        made = [one for _, one in compact(open_store(str(root)), later)]
        print(
            f"compacted: {len(made)} files, {sum(one.size_bytes for one in made) / 1e6:,.0f} MB, "
            f"made in {time.perf_counter() - begin_s:.0f} s by one process",
            flush=True,
        )
        report(shape, metered_mj, options.cores)


if __name__ == "__main__":
    main()

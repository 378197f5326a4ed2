"""What it takes to submit a job of rows: CPU time a row, and the most memory, by format.

Rows have a class, a seed, a custom_id of 16 characters and two more columns. The peer is DuckDB,
with the same limit of memory: it reads the same file, keeps the first row of every id, and writes
Parquet; it checks no class or seed, and stops at a bad line. Each way is a process of its own,
rounds interleaved, medians. Memory is above that of the imports.

    python benchmarks/job_rows.py [--rows 1e6] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from cluster.storage.open import open_store
from jobs.inputs.gather import gathered
from jobs.resolve import ModelFacts
from jobs.spec import InputsSpec
from un0.quantities import parse_count

FORMATS = {"parquet": "format parquet", "csv": "format csv, header", "jsonl": "format json"}
WAYS = ("ours", "duckdb")
MODEL = ModelFacts("benchmark", "0" * 64, 10, 32, tuple(f"class {n}" for n in range(10)))


def make(path: Path, rows: int, how: str) -> None:
    duckdb.sql(
        "copy (select 'class ' || i % 10 as class, i * 7919 as seed, format('row-{:012d}', i) as "
        f"custom_id, 'a caption of row ' || i as caption, i / 7 as score from range({rows}) as t(i)"
        f") to '{path}' ({how})"
    )


def ours(path: Path, folder: Path) -> None:
    with gathered(InputsSpec(source=str(path)), open_store(str(folder)), MODEL):
        pass


def by_duckdb(path: Path, folder: Path) -> None:
    with duckdb.connect(str(folder / "peer.duckdb")) as database:
        for setting in ("memory_limit = '512MB'", "threads = 2", "enable_progress_bar = false"):
            database.execute(f"set {setting}")
        database.execute(f"set temp_directory = '{folder}'")
        numbered = f"(select *, row_number() over () as n from '{path}') as source"
        database.execute(
            "create table firsts as select custom_id as id, min(n) as place "
            f"from {numbered} group by id"
        )
        database.execute(
            f"copy (select source.* from {numbered} join firsts on place = n order by n) "
            f"to '{folder}/out.parquet' (format parquet)"
        )


def measured(way: str, path: Path) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--only", way, "--path", str(path)]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def only(way: str, path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        begin_s = time.process_time()
        (ours if way == "ours" else by_duckdb)(path, Path(folder))
        cpu_s = time.process_time() - begin_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_s": cpu_s, "mib": (peak - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=parse_count, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        only(options.only, options.path)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, how in FORMATS.items():
            path = Path(folder, f"rows.{name}")
            make(path, options.rows, how)
            rounds = [{way: measured(way, path) for way in WAYS} for _ in range(options.rounds)]
            for way in WAYS:
                cpu_s = statistics.median(each[way]["cpu_s"] for each in rounds)
                rows.append(
                    {
                        "format": name,
                        "way": way,
                        "cpu_us_per_row": 1e6 * cpu_s / options.rows,
                        "peak_mib": statistics.median(each[way]["mib"] for each in rounds),
                    }
                )
            path.unlink()
    if options.json:
        print(json.dumps({"rows": options.rows, "ways": rows}))
        return
    print(f"{'format':10}{'way':10}{'us/row':>8}{'MiB':>8}")
    for row in rows:
        figures = f"{row['cpu_us_per_row']:8.2f}{row['peak_mib']:8.0f}"
        print(f"{row['format']:10}{row['way']:10}{figures}")


if __name__ == "__main__":
    main()

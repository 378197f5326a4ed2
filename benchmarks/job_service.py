"""The job service over a store with many jobs, beside what reads every job or every commit.

A store in memory holds ``--jobs`` submitted jobs that are paused, and one that a server reports as
running, with ``--shards`` committed shards. Asked for are the first page of all jobs and of the
paused ones, and the status of the running job; beside them, in the same rounds, what the answers
would take without pages (every job read, as ``un0 query`` does) and without the run's report (its
commits read). CPU and wall seconds, medians of interleaved rounds; and requests to the store, of
which a server across a network answers a few hundred a second.

    python benchmarks/job_service.py [--jobs 10000] [--shards 5000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cluster.states import JobState  # noqa: E402
from cluster.storage.intents import Intent  # noqa: E402
from cluster.storage.layout import JobLayout  # noqa: E402
from cluster.storage.object_store import ObjectStore  # noqa: E402
from cluster.storage.open import open_store  # noqa: E402
from cluster.storage.servers import Beat, RunStatus, put_beat, put_run  # noqa: E402
from cluster.storage.summaries import list_jobs, summarise  # noqa: E402
from cluster.types import Energy  # noqa: E402
from jobs.service.core import StoreService  # noqa: E402
from jobs.service.views import JobFilter  # noqa: E402
from tests.support import jobfactory  # noqa: E402
from tests.support.counting_store import CountingStore  # noqa: E402

NOW = datetime.now(UTC)
RUNNING = "20270101T000000-running"
MEASURED = Energy(energy_mj=1000, quality="measured_counter", method="benchmark")


def fill(directory: Path, jobs: int, shards: int) -> ObjectStore:
    """The jobs, written as files at once: a store's own writes are flushed one by one."""
    store = open_store(str(directory), probe=False)

    def write(key: str, data: str) -> None:
        path = directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data)

    def submit(job_id: str, count: int, wanted: str) -> None:
        layout = JobLayout(job_id)
        jobfactory.submit(Written(write), jobfactory.workload(job_id, count=count, shard_images=1))  # type: ignore[arg-type]
        intent = Intent(
            job_id=job_id,
            number=1,
            wanted=wanted,  # type: ignore[arg-type]
            by="x",
            at=NOW,
            token="t",
        )
        write(layout.intent(1), intent.model_dump_json())
        write(layout.active, "")

    for number in range(jobs):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        submit(f"{at:%Y%m%dT%H%M%S}-{number:06x}", 100, "pause")
    submit(RUNNING, shards + 1, "run")
    job = jobfactory.workload(RUNNING, count=shards + 1, shard_images=1)
    for shard in range(shards):
        record = jobfactory.record_of(job, job.shard(shard), b"x", MEASURED)
        write(JobLayout(RUNNING).commit(shard), record.model_dump_json())
    status = RunStatus(
        job_id=RUNNING,
        epoch=1,
        server_id="s",
        intent=1,
        state=JobState.RUNNING,
        at=NOW,
        committed_images=shards,
        energy=MEASURED,
    )
    put_run(store, status)
    beat = Beat(
        server_id="s",
        count=1,
        host_name="h",
        pid=1,
        address=None,
        jobs=1,
        started_at=NOW,
        at=NOW,
    )
    put_beat(store, beat)
    return store


class Written:
    """As much of a store as writes a job."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data.decode())


def page(store: ObjectStore) -> None:
    assert len(StoreService(store).jobs(JobFilter()).jobs) == 50


def paused(store: ObjectStore) -> None:
    found = StoreService(store).jobs(JobFilter(state=JobState.PAUSED)).jobs
    assert len(found) == 50


def every_job(store: ObjectStore) -> None:
    assert sum(job.images for job in list_jobs(store))


def status(store: ObjectStore) -> None:
    assert StoreService(store).status(RUNNING).counts.committed


def every_commit(store: ObjectStore) -> None:
    assert summarise(store, RUNNING).images


CASES: tuple[tuple[str, Callable[[ObjectStore], None]], ...] = (
    ("first page of all jobs", page),
    ("first page of paused jobs", paused),
    ("every job read", every_job),
    ("status of the running job", status),
    ("its commits read", every_commit),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        store = fill(directory, args.jobs, args.shards)
        rows = measure(store, args.rounds)
    finally:
        shutil.rmtree(directory)
    if args.json:
        print(json.dumps({"jobs": args.jobs, "shards": args.shards, "rows": rows}, indent=2))
        return
    print(f"{args.jobs:,} jobs; {args.shards:,} committed shards; {args.rounds} rounds")
    for row in rows:
        print(
            f"{row['case']:28} {row['cpu_s']:8.3f} CPU s {row['wall_s']:8.3f} s"
            f" {row['requests']:9,} requests"
        )


def measure(store: ObjectStore, rounds: int) -> list[dict[str, object]]:
    """Median CPU and wall seconds of each case, and its requests."""
    cpu_s: dict[str, list[float]] = {name: [] for name, _ in CASES}
    wall_s: dict[str, list[float]] = {name: [] for name, _ in CASES}
    for _ in range(rounds):
        for name, case in CASES:
            began, began_cpu = time.monotonic(), time.process_time()
            case(store)
            cpu_s[name].append(time.process_time() - began_cpu)
            wall_s[name].append(time.monotonic() - began)
    rows: list[dict[str, object]] = []
    for name, case in CASES:
        counting = CountingStore(store)
        case(counting)
        rows.append(
            {
                "case": name,
                "cpu_s": statistics.median(cpu_s[name]),
                "wall_s": statistics.median(wall_s[name]),
                "requests": sum(counting.calls.values()),
            }
        )
    return rows


if __name__ == "__main__":
    main()

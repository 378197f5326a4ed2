"""One action of benchmarks/large_job.py in a process of its own; prints what it took as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.states import JobState
from cluster.storage.commit import committed_shards, create_once, parse_record
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout, shard_of_attempt
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.summaries import list_jobs, load_job, summarise
from cluster.types import CommitRecord, Manifest
from jobs.service.core import StoreService
from jobs.service.views import JobFilter


def resume(store: ObjectStore, job_id: str) -> None:
    from cluster.actors.job_run import JobRun

    job = load_job(store, job_id).workload
    first_assignment(job, JobRun(job, store).open())


def first_assignment(job: Any, done: tuple[tuple[int, int], ...]) -> None:
    """The scheduler gets the job, and hands out what is left of it."""
    from cluster.scheduler.commands import RunAssignment
    from cluster.scheduler.events import JobSubmitted, ReplicaAwake, ReplicaJoined
    from cluster.scheduler.profiles import Profile, ProfileBook
    from cluster.scheduler.request import JobRequest, OperatingPoint, Performance, StandbyCost
    from cluster.scheduler.state import SchedulerState

    speed = Performance(OperatingPoint(64), 1000.0, 300.0)
    book = ProfileBook([Profile("gpu", "m", StandbyCost(80.0, 1.0, 100.0), (speed,))])
    state = SchedulerState(book)
    state.handle(ReplicaJoined(0.0, "r", "n", "gpu"))
    request = JobRequest(job.job_id, "m", job.count, job.shard_images)
    state.handle(JobSubmitted(0.0, request, done))
    commands = state.handle(ReplicaAwake(1.0, "r", "m"))
    if not any(isinstance(command, RunAssignment) for command in commands):
        raise AssertionError(f"no assignment: {commands}")


def status(store: ObjectStore, job_id: str) -> None:
    job = summarise(store, job_id)
    if job.images < job.count - 2 * job.workload.shard_images or job.energy.energy_mj is None:
        raise AssertionError("images are missing")


def finish(store: ObjectStore, job_id: str) -> None:
    job = load_job(store, job_id).workload
    manifest = finalise(store, job_id, JobState.COMPLETED, shards=job.num_shards)
    if manifest.images != job.count:
        raise AssertionError("images are missing")


def page(store: ObjectStore, _: str) -> None:
    found = StoreService(store).jobs(JobFilter(), 50)
    if len(found.jobs) != 50 or not all(job.counts.committed for job in found.jobs):
        raise AssertionError("jobs are missing")


def every_job(store: ObjectStore, _: str) -> None:
    sum(job.images for job in list_jobs(store))


# As it was before there were checkpoints: a record a shard, all of them in memory.


def read_all(store: ObjectStore, job_id: str) -> dict[int, CommitRecord]:
    shards = sorted(committed_shards(store, job_id))

    def read(shard: int) -> CommitRecord:
        key = JobLayout(job_id).commit(shard)
        return parse_record(CommitRecord, key, store.get(key))

    with ThreadPoolExecutor(16) as pool:
        return dict(zip(shards, pool.map(read, shards), strict=True))


def before_resume(store: ObjectStore, job_id: str) -> None:
    job = load_job(store, job_id).workload
    commits, energy = read_all(store, job_id), ZERO_ENERGY
    for record in commits.values():
        energy = sum_energy([energy, record.energy])
    first_assignment(job, tuple((shard, shard + 1) for shard in commits))


def before_status(store: ObjectStore, job_id: str) -> None:
    layout = JobLayout(job_id)
    if any(info.key == layout.marker("completed") for info in store.list(f"{layout.root}_")):
        manifest = parse_record(Manifest, layout.manifest, store.get(layout.manifest))
        commits = list(manifest.commits)
    else:
        commits = list(read_all(store, job_id).values())
    sum_energy(record.energy for record in commits)


def before_finish(store: ObjectStore, job_id: str) -> None:
    layout, commits = JobLayout(job_id), read_all(store, job_id)
    vouched = {o.key: o.size_bytes for record in commits.values() for o in record.objects}
    sizes = {info.key: info.size_bytes for info in store.list(layout.attempts)}
    if any(sizes.get(key) != size_bytes for key, size_bytes in vouched.items()):
        raise AssertionError("objects are missing")
    for key in sizes.keys() - vouched.keys():
        if shard_of_attempt(key) in commits:
            store.delete(key)
    energy = sum_energy(record.energy for record in commits.values())
    manifest = Manifest(
        job_id=job_id, state=JobState.COMPLETED, images=sum(r.rows for r in commits.values()),
        shards=len(commits), commits=tuple(commits.values()), energy=energy, overhead=ZERO_ENERGY,
        finished_at=next(iter(commits.values())).committed_at,
    )  # fmt: skip
    data = create_once(store, layout.manifest, manifest.model_dump_json().encode())
    parse_record(Manifest, layout.manifest, data)
    create_once(store, layout.marker("completed"), b"")


ACTIONS: dict[str, Callable[[ObjectStore, str], None]] = {
    "resume": resume,
    "status": status,
    "finish": finish,
    "page": page,
    "all": every_job,
    "before_resume": before_resume,
    "before_status": before_status,
    "before_finish": before_finish,
}


def peak_kb() -> int:
    """Of this program; ``ru_maxrss`` would begin with that of the one which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    name, uri, job_id = sys.argv[1:]
    sent: Counter[str] = Counter()
    if uri.startswith("s3:"):
        from botocore.httpsession import URLLib3Session

        real = URLLib3Session.send

        def counted(session: Any, request: Any) -> Any:
            sent["LIST" if "list-type=2" in request.url else request.method] += 1
            return real(session, request)

        URLLib3Session.send = counted  # type: ignore[method-assign]
    if name.endswith("resume"):
        import cluster.actors.job_run
        import cluster.scheduler.state  # noqa: F401
    store = open_store(uri, probe=False)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    ACTIONS[name](store, job_id)
    took_s, took_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak_mb = peak_kb() / 1024
    print(json.dumps({"s": took_s, "cpu_s": took_cpu_s, "peak_mb": peak_mb, "requests": sent}))


if __name__ == "__main__":
    main()

"""A job of very many shards: how long its resume, status and end take, and how much memory.

Makes a store with a job as it stands when its run is killed before the last shard: commit records
of the usual size with made-up digests, an image file of one byte for each, and the checkpoints that
a run leaves behind, the last 499 commits without one. In a directory the image files are links to
a few, and nothing is flushed. Then measures, each in a fresh process once its modules are imported:

    resume  until the scheduler's first assignment (claim, commits, the scheduler's backlog)
    status  what `un0 jobs` says of the job: state, images, joules
    finish  the last shard being there: checkpoint, sweep of attempts, manifest, _SUCCESS

beside the same as it was before there were checkpoints, a record a shard, on a smaller job.

    python benchmarks/large_job.py [--shards 1000000] [--before 40000] [--jobs 10000]
                                   [--store URI | --s3] [--rounds 3] [--json]

--jobs: a page of 50 of a store of so many jobs, too. --s3: on SeaweedFS, with requests counted; the
store is filled through its filer, without S3's signatures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cluster.storage.checkpoint import write_checkpoint
from cluster.storage.checkpointing import FRESH
from cluster.storage.commits import CHECKPOINT_SHARDS
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import (
    CommitRecord,
    DataObject,
    Energy,
    JobRecord,
    Manifest,
    SubmittedSpec,
    Workload,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
SHARD_IMAGES = 1000
LINKS = 30_000  # to one file: ext4 takes 65,000
CHILD = Path(__file__).with_name("large_job_child.py")


def workload(job_id: str, shards: int) -> Workload:
    return Workload(
        job_id=job_id, model="made-up", model_rev="0" * 64, count=shards * SHARD_IMAGES, seed=0,
        shard_images=SHARD_IMAGES, class_ids=(0,), width=32, height=32,
    )  # fmt: skip


def record(job_id: str, shard: int) -> CommitRecord:
    noise = os.urandom(64).hex()
    attempt, token, digest = noise[:32], noise[32:64], noise[64:]
    data = DataObject(
        key=JobLayout(job_id).images(shard, attempt),
        size_bytes=1,
        sha256=digest * 2,
        rows=SHARD_IMAGES,
    )
    return CommitRecord(
        job_id=job_id, shard=shard, start=shard * SHARD_IMAGES, stop=(shard + 1) * SHARD_IMAGES,
        attempt_id=attempt, token=token, objects=(data,), rows=SHARD_IMAGES,
        energy=Energy(energy_mj=1000 + shard % 977, quality="measured_counter", method="nvml"),
        model_rev="0" * 64, hardware="NVIDIA H100 80GB HBM3", host_name=f"node-{shard % 50}",
        generate_s=0.5 + shard % 7 / 10, committed_at=START + timedelta(milliseconds=shard),
    )  # fmt: skip


class Directory:
    """Writes to a local store's directory: no temporary file, no flush."""

    def __init__(self, uri: str) -> None:
        self._root = unquote(urlsplit(uri).path) + "/"
        self._written = 0

    def commit(self, key: str, data: bytes) -> None:
        with open(self._root + key, "wb") as file:  # noqa: PTH123
            file.write(data)

    def image(self, key: str) -> None:
        """A link to a file of one byte."""
        source = f"{self._root}one-byte-{self._written // LINKS}"
        if self._written % LINKS == 0:
            Path(source).write_bytes(b"x")
        self._written += 1
        above = self._root + key.rpartition("/")[0]
        os.mkdir(above.rpartition("/")[0])  # noqa: PTH102
        os.mkdir(above)  # noqa: PTH102
        os.link(source, self._root + key)

    def tidy(self) -> None:
        for path in Path(self._root).glob("one-byte-*"):
            path.unlink()
        self._written = 0


class Puts:
    """Writes through the store's own puts, several at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._pool = store, ThreadPoolExecutor(16)
        self._sent: list[Any] = []

    def commit(self, key: str, data: bytes) -> None:
        self._sent.append(self._pool.submit(self._store.put, key, data))
        if len(self._sent) > 500:
            self.tidy()

    def image(self, key: str) -> None:
        self.commit(key, b"x")

    def tidy(self) -> None:
        for sent in self._sent:
            sent.result()
        self._sent = []


class Filer(Puts):
    """Writes to SeaweedFS's filer, whose requests cost a tenth of boto3's."""

    def __init__(self, store: ObjectStore, port: int) -> None:
        super().__init__(store)
        self._pool = ThreadPoolExecutor(4)
        self._port, self._mine = port, threading.local()
        address = urlsplit(store.config.uri)
        self._at = f"/buckets/{address.netloc}{address.path}/"

    def commit(self, key: str, data: bytes) -> None:
        self._sent.append(self._pool.submit(self._send, key, data))
        if len(self._sent) > 500:
            self.tidy()

    def _send(self, key: str, data: bytes) -> None:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = HTTPConnection("127.0.0.1", self._port)
        self._mine.connection.request("PUT", self._at + key, data)
        reply = self._mine.connection.getresponse()
        reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"{key}: the filer answered {reply.status}")


def make_job(
    store: ObjectStore, fast: Directory | Puts, job_id: str, shards: int, *, checkpoints: bool
) -> None:
    """All but the last shard committed."""
    layout = JobLayout(job_id)
    submit(store, job_id, shards)
    store.put(layout.commit(0), b"")  # makes directories
    store.put(f"{layout.attempts}x", b"")
    store.delete(f"{layout.attempts}x")
    if isinstance(fast, Directory):
        Path(unquote(urlsplit(store.config.uri).path), layout.attempts).mkdir(exist_ok=True)
    for first in range(0, shards, CHECKPOINT_SHARDS):
        stop = min(first + CHECKPOINT_SHARDS, shards)
        made = []
        for shard in range(first, min(stop, shards - 1)):
            one = record(job_id, shard)
            fast.commit(layout.commit(shard), one.model_dump_json().encode())
            fast.image(one.objects[0].key)
            made.append(one)
        beside = FRESH - 1 if stop == shards else 0
        held = made[: len(made) - beside]
        if checkpoints and shards > CHECKPOINT_SHARDS and held:
            write_checkpoint(store, job_id, first, stop, held)
    fast.tidy()


def submit(store: ObjectStore, job_id: str, shards: int) -> None:
    spec = JobRecord(
        workload=workload(job_id, shards), spec=SubmittedSpec(), owner="bench", submitted_at=START
    )
    store.put(JobLayout(job_id).spec, spec.model_dump_json().encode())


def last_shard(store: ObjectStore, job_id: str, shards: int) -> None:
    one = record(job_id, shards - 1)
    store.put(one.objects[0].key, b"x")
    store.put(JobLayout(job_id).commit(one.shard), one.model_dump_json().encode())


def make_jobs(fast: Directory | Puts, store: ObjectStore, jobs: int) -> None:
    """Completed jobs of one shard, as they look in a listing."""
    for number in range(jobs):
        job_id = f"{START + timedelta(minutes=number):%Y%m%dT%H%M%S}-{number:06x}"
        layout, one = JobLayout(job_id), record(job_id, 0)
        manifest = Manifest(
            job_id=job_id, state="completed", images=one.rows, shards=1, commits=(one,),
            energy=one.energy, overhead=one.energy, finished_at=START,
        )  # fmt: skip
        spec = JobRecord(workload=workload(job_id, 1), spec=SubmittedSpec(), owner="bench",
                         submitted_at=START + timedelta(minutes=number))  # fmt: skip
        if isinstance(fast, Directory):
            Path(unquote(urlsplit(store.config.uri).path), layout.root).mkdir(parents=True)
        fast.commit(layout.spec, spec.model_dump_json().encode())
        fast.commit(layout.manifest, manifest.model_dump_json().encode())
        fast.commit(layout.marker("completed"), b"")
    fast.tidy()


def child(action: str, uri: str, job_id: str = "") -> dict[str, Any]:
    """The action in a process of its own: seconds, CPU seconds, peak MB, requests by kind."""
    done = subprocess.run(
        [sys.executable, str(CHILD), action, uri, job_id], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{action} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def medians(action: str, uri: str, job_id: str, rounds: int) -> dict[str, Any]:
    runs = [child(action, uri, job_id) for _ in range(rounds)]
    middle = {name: statistics.median(run[name] for run in runs) for name in ("s", "cpu_s")}
    return {**runs[-1], **middle, "peak_mb": max(run["peak_mb"] for run in runs)}


def measure(
    store: ObjectStore, job_id: str, shards: int, rounds: int, prefix: str = ""
) -> dict[str, Any]:
    uri = store.config.uri
    found = {name: medians(prefix + name, uri, job_id, rounds) for name in ("resume", "status")}
    last_shard(store, job_id, shards)
    found["finish"] = child(f"{prefix}finish", uri, job_id)
    found["status_ended"] = medians(f"{prefix}status", uri, job_id, rounds)
    row: dict[str, Any] = {"shards": shards}
    row |= {f"{name}_s": round(one["s"], 3) for name, one in found.items()}
    row["peak_mb"] = max(round(one["peak_mb"]) for one in found.values())
    row |= {f"{name}_cpu_s": round(one["cpu_s"], 3) for name, one in found.items()}
    row |= {f"{name}_peak_mb": round(one["peak_mb"]) for name, one in found.items()}
    if any(one["requests"] for one in found.values()):
        row |= {f"{name}_requests": one["requests"] for name, one in found.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--before", type=int, default=40_000, help="0: no peer")
    parser.add_argument("--jobs", type=int, default=10_000, help="0: no listing of jobs")
    parser.add_argument("--store", help="an empty directory, or an s3:// URI")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        filer = None
        uri = args.store
        if args.s3:
            from cluster.storage.dev_s3 import DevS3

            server = stack.enter_context(DevS3())
            os.environ |= server.env()
            uri, filer = f"{server.uri}/bench", urlsplit(server.endpoint_url).port + 2
        elif uri is None:
            uri = tempfile.mkdtemp(prefix="un0-large-")
            stack.callback(shutil.rmtree, uri, ignore_errors=True)
        rows = list(filled(open_store(uri), filer, args))
    first = rows[0]
    if args.json:
        print(json.dumps(first | {"rows": rows[1:]}, indent=2))
        return
    for row in rows:
        print("\n".join(f"{name:22} {value}" for name, value in row.items()), end="\n\n")


def filled(
    store: ObjectStore, filer: int | None, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    fast = writer(store, filer)

    def made(job_id: str, shards: int, checkpoints: bool) -> float:
        began_s = time.perf_counter()
        make_job(store, fast, job_id, shards, checkpoints=checkpoints)
        return round(time.perf_counter() - began_s, 1)

    made_s = made("large", args.shards, True)
    yield measure(store, "large", args.shards, args.rounds) | {"made_in_s": made_s}
    if args.before:
        made_s = made("before", args.before, False)
        row = measure(store, "before", args.before, args.rounds, "before_")
        yield {"what": "before"} | row | {"made_in_s": made_s}
    if args.jobs:  # in a store of their own
        among = open_store(f"{store.config.uri}/listing")
        fast = writer(among, filer)
        began_s = time.perf_counter()
        make_jobs(fast, among, args.jobs)
        made_s = round(time.perf_counter() - began_s, 1)
        page, whole = (medians(name, among.config.uri, "", args.rounds) for name in ("page", "all"))
        yield {
            "what": "jobs", "jobs": args.jobs, "page_s": round(page["s"], 3),
            "page_cpu_s": round(page["cpu_s"], 3), "page_peak_mb": round(page["peak_mb"]),
            "page_requests": page["requests"], "all_s": round(whole["s"], 3),
            "all_requests": whole["requests"], "made_in_s": made_s,
        }  # fmt: skip


def writer(store: ObjectStore, filer: int | None) -> Directory | Puts:
    """The fastest way to fill the store."""
    if store.config.uri.startswith("file:"):
        return Directory(store.config.uri)
    return Puts(store) if filer is None else Filer(store, filer)


if __name__ == "__main__":
    main()

"""The HTTP API under load: many who watch a job by its events, and status calls beside them.

The peer is the same server without shared reads: every look at a job reads the store. Each round
starts a server of each kind on the same store, in turn; the load is one other process.

    python benchmarks/http_api.py [--watchers 1000] [--rate 200] [--seconds 10] [--rounds 3]
                                  [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psutil

from cluster.clock import monotonic_s
from cluster.storage.open import open_store
from jobs.server.http import AuthOptions, run_http
from jobs.server.options import HttpOptions
from jobs.service.over_store import over_store
from jobs.spec import JobSpec

KINDS = {"shared reads": 0.5, "a read a look": 0.0}  # how old a status may be, s
CONNECTIONS = 32  # of the status calls
_MANY = HttpOptions(watchers=10_000, connections=20_000)


def serve(store: str, status_s: float, port: Any, end: Any) -> None:
    """A server's process."""
    options = replace(_MANY, status_s=status_s)

    def ready(url: str) -> None:
        port.put(int(url.rpartition(":")[2]))

    opened = open_store(store, probe=False)
    run_http("127.0.0.1", 0, opened, AuthOptions(no_auth=True), end.is_set, on_ready=ready,
             options=options)  # fmt: skip


@contextmanager
def served(store: str, status_s: float) -> Any:
    """(the server's port, its process)."""
    context = multiprocessing.get_context("spawn")
    port, end = context.Queue(), context.Event()
    process = context.Process(target=serve, args=(store, status_s, port, end))
    process.start()
    try:
        yield port.get(timeout=60), psutil.Process(process.pid)
    finally:
        end.set()
        process.join(30)


class Link:
    """A connection that asks for one path again and again."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def get(self) -> bytes:
        """The body of one answer."""
        try:
            self._writer.write(self._ask)
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):  # it was idle, and was closed
            await self.open()
            self._writer.write(self._ask)
            head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        size = next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:"))
        return await self._reader.readexactly(int(size.split(b":")[1]))

    async def watch(self, seen: list[int]) -> None:
        """Read a stream of events until it is cancelled; counts frames."""
        await self.open()
        self._writer.write(self._ask)
        with suppress(asyncio.IncompleteReadError):
            while True:
                await self._reader.readuntil(b"\n\n")
                seen[0] += 1


async def load(
    port: int, job_id: str, watchers: int, rate: float, seconds: float, server: psutil.Process
) -> dict[str, float]:
    """One round: latencies in ms, the server's CPU seconds a second, reads a second."""
    seen = [0]
    watching = []
    for _ in range(watchers):
        link = Link(port, f"/v1/jobs/{job_id}/events")
        watching.append(asyncio.create_task(link.watch(seen)))
        if len(watching) % 50 == 0:
            await asyncio.sleep(0.1)
    until_s = monotonic_s() + 60
    while seen[0] < 2 * watchers and monotonic_s() < until_s:
        await asyncio.sleep(0.1)
    watched = seen[0]
    links: asyncio.Queue[Link] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        link = Link(port, f"/v1/jobs/{job_id}")
        await link.open()
        links.put_nowait(link)
    metrics = Link(port, "/metrics")
    await metrics.open()
    took_ms: list[float] = []

    async def ask(due_s: float) -> None:
        link = await links.get()
        await link.get()
        links.put_nowait(link)
        took_ms.append(1000 * (monotonic_s() - due_s))  # the wait for a connection included

    reads, cpu = _reads(await metrics.get()), _cpu_s(server)
    began_s = monotonic_s()
    asking = []
    for number in range(int(rate * seconds)):
        due_s = began_s + number / rate
        await asyncio.sleep(max(0.0, due_s - monotonic_s()))
        asking.append(asyncio.create_task(ask(due_s)))
    await asyncio.gather(*asking)
    ran_s = monotonic_s() - began_s
    cpu, reads = _cpu_s(server) - cpu, _reads(await metrics.get()) - reads
    for task in watching:
        task.cancel()
    return {
        "p50_ms": statistics.median(took_ms),
        "p99_ms": statistics.quantiles(took_ms, n=100)[98],
        "answers_per_s": len(took_ms) / ran_s,
        "cpu_share": cpu / ran_s,
        "reads_per_s": reads / ran_s,
        "watchers": float(min(watchers, watched // 2)),
    }


def _reads(metrics: bytes) -> float:
    name = b"un0_http_status_reads_total "
    return float(next(x for x in metrics.splitlines() if x.startswith(name)).split()[1])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=200.0, help="status calls a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as store:
        job = over_store(open_store(store)).submit(JobSpec(count=1000), by="benchmark")
        for _ in range(args.rounds):
            for kind, status_s in KINDS.items():
                with served(store, status_s) as (port, server):
                    running = load(port, job.job_id, args.watchers, args.rate, args.seconds, server)
                    found[kind].append(asyncio.run(running))
    rows = [
        {"kind": kind} | {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        for kind, rounds in found.items()
    ]
    if args.json:
        print(json.dumps({"rows": rows, "rounds": found}, indent=2))
        return
    print(
        f"{args.watchers} watchers, {args.rate:g} status calls/s, medians of {args.rounds} rounds"
    )
    for row in rows:
        print(
            f"{row['kind']:14} p50 {row['p50_ms']:7.1f} ms   p99 {row['p99_ms']:7.1f} ms   "
            f"{row['answers_per_s']:5.0f} answers/s   {row['reads_per_s']:6.1f} reads/s   "
            f"{row['cpu_share']:.2f} CPUs   {row['watchers']:.0f} watched"
        )


if __name__ == "__main__":
    sys.exit(main())

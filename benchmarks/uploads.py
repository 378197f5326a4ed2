"""What an upload costs its client: CPU time and MB/s, by way, object size and puts in flight.

Ways: ``before``, boto3's put_object of joined bytes, the commit's digest computed beside it;
``reader``, the same of a seekable file; ``ours``, ``S3Store.put`` of chunks; ``crt``, boto3's
transfer by the AWS Common Runtime; ``http``, urllib3 alone, without digest, checksum and signature:
what sending costs. ``before`` and ``reader`` join their pieces, as they must. Servers: ``sink`` (a
process of this benchmark's) drops bodies, ``sink-tls`` does over TLS, ``sink-slow`` answers
0.2 s late; ``seaweedfs`` keeps them. Each way has a process, whose CPU time is counted; rounds are
interleaved, figures are medians. ``local`` is ``LocalStore.put`` (write, fsync, rename) of joined
bytes and of chunks.

    python benchmarks/uploads.py [--megabytes 1 4 16 64] [--flights 1 2 4 8] [--rounds 5] [--json]

The CRT is no dependency: ``pip install --target DIR awscrt``, and ``--crt DIR``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import Any

from s3_sink import LATE_S, sinking

PIECE_BYTES = 300_000  # a Parquet page or so
POINT_BYTES = 32 << 20  # sent for one figure, at least
BUCKET = "un0"
SERVERS = (*LATE_S, "seaweedfs", "local")
S3_WAYS = ("before", "reader", "ours", "crt", "http")
Send = Callable[[str, Any], object]
Row = dict[str, Any]


class Client:
    """In a process of its own: sends objects in one way to one server."""

    def __init__(self, way: str, place: str, environment: dict[str, str], crt: str | None) -> None:
        if crt and way == "crt":
            sys.path.insert(0, crt)  # before botocore is imported, which asks for it
        os.environ |= environment
        self._pools: dict[int, ThreadPoolExecutor] = {}
        make = getattr(self, f"_{way}")
        self.send: Send = make(place)

    def point(self, size: int, flight: int, count: int) -> tuple[float, float, float]:
        """(wall seconds, CPU seconds, peak MB so far) of so many puts of new chunks."""
        from cluster.storage.chunks import Chunks

        data = memoryview(os.urandom(size))
        pieces = [data[at : at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES)]
        pool = self._pools.setdefault(flight, ThreadPoolExecutor(flight))
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        list(pool.map(lambda n: self.send(f"bench/{n}", Chunks(pieces)), range(count)))
        wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
        return wall_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _before(self, endpoint: str) -> Send:
        return self._boto(endpoint, lambda data: data)

    def _reader(self, endpoint: str) -> Send:
        return self._boto(endpoint, io.BytesIO)

    def _boto(self, endpoint: str, body_of: Callable[[bytes], Any]) -> Send:
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                max_pool_connections=32,
                request_checksum_calculation="when_required",
            ),
        )

        def send(key: str, chunks: Any) -> None:
            data = bytes(chunks)
            hashlib.sha256(data).hexdigest()
            crc = b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
            client.put_object(Bucket=BUCKET, Key=key, Body=body_of(data), ChecksumCRC32=crc)

        return send

    def _ours(self, endpoint: str) -> Send:
        from cluster.storage.object_store import StoreConfig
        from cluster.storage.s3 import S3Store

        store = S3Store(StoreConfig(f"s3://{BUCKET}", endpoint, "us-east-1", checksum="crc32"))

        def send(key: str, chunks: Any) -> None:
            chunks.sha256()
            store.put(key, chunks)

        return send

    def _crt(self, endpoint: str) -> Send:
        import botocore.session
        from awscrt.auth import AwsCredentialsProvider
        from s3transfer.crt import (
            BotocoreCRTCredentialsWrapper,
            BotocoreCRTRequestSerializer,
            CRTTransferManager,
            create_s3_crt_client,
        )

        session = botocore.session.get_session()
        wrapped = BotocoreCRTCredentialsWrapper(session.get_credentials())
        provider: AwsCredentialsProvider = wrapped.to_crt_credentials_provider()
        trusted = os.environ.get("AWS_CA_BUNDLE")
        s3 = create_s3_crt_client(
            "us-east-1", provider, use_ssl=endpoint.startswith("https"), verify=trusted
        )
        serializer = BotocoreCRTRequestSerializer(
            session, {"endpoint_url": endpoint, "region_name": "us-east-1"}
        )
        manager = CRTTransferManager(s3, serializer)

        def send(key: str, chunks: Any) -> None:
            chunks.sha256()
            manager.upload(chunks.open(), BUCKET, key).result()

        return send

    def _http(self, endpoint: str) -> Send:
        import urllib3

        pool = urllib3.PoolManager(maxsize=32, ca_certs=os.environ.get("AWS_CA_BUNDLE"))

        def send(key: str, chunks: Any) -> None:
            headers = {"Content-Length": str(chunks.size_bytes)}
            pool.request("PUT", f"{endpoint}/{BUCKET}/{key}", body=chunks.buffers, headers=headers)

        return send

    def _bytes(self, directory: str) -> Send:
        return self._local(directory, bytes)

    def _chunks(self, directory: str) -> Send:
        return self._local(directory, lambda chunks: chunks)

    def _local(self, directory: str, form: Callable[[Any], Any]) -> Send:
        from cluster.storage.local import LocalStore
        from cluster.storage.object_store import StoreConfig

        store = LocalStore(StoreConfig(f"file://{directory}"))
        return lambda key, chunks: store.put(key, form(chunks))


_client: Client


def _begin(*args: Any) -> None:
    global _client
    _client = Client(*args)


def _point(*args: int) -> tuple[float, float, float]:
    return _client.point(*args)


def measure(
    server: str, ways: list[str], place: str, env: dict[str, str], options: Any
) -> list[Row]:
    """Rows of every way, size and flight at one server or directory."""
    found: dict[tuple[str, int, int], list[tuple[float, float, float]]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        clients = {
            way: stack.enter_context(
                ProcessPoolExecutor(1, spawn, _begin, (way, place, env, options.crt))
            )
            for way in ways
        }
        for client in clients.values():
            client.submit(_point, 1000, 8, 16).result()  # imports, connections
        for megabytes in options.megabytes:
            for _, flight in product(range(options.rounds), options.flights):
                count = max(POINT_BYTES // (megabytes << 20), flight)
                for way, client in clients.items():
                    spent = client.submit(_point, megabytes << 20, flight, count).result()
                    sent_mb = count * (megabytes << 20) / 1e6
                    wall_s, cpu_s, peak_mb = spent
                    point = found.setdefault((way, megabytes, flight), [])
                    point.append((sent_mb / wall_s, 1e3 * cpu_s / sent_mb, peak_mb))
    return [
        {
            "server": server,
            "way": way,
            "megabytes": megabytes,
            "in_flight": flight,
            "mb_per_s": statistics.median(rate for rate, _, _ in points),
            "cpu_ms_per_mb": statistics.median(cpu for _, cpu, _ in points),
            "peak_mb": max(peak for _, _, peak in points),
        }
        for (way, megabytes, flight), points in found.items()
    ]


def show(rows: list[Row]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}; CPU ms a MB (MB/s), the client's alone")
    flights = sorted({row["in_flight"] for row in rows})
    print(f"{'server':10} {'way':8} {'MiB':>4}", *(f"{f'{n} in flight':>16}" for n in flights))
    cells = {(r["server"], r["megabytes"], r["way"], r["in_flight"]): r for r in rows}
    for server, megabytes, way in dict.fromkeys(
        key[:3] for key in sorted(cells, key=lambda k: (k[0], k[1]))
    ):
        found = (cells[server, megabytes, way, flight] for flight in flights)
        text = (f"{r['cpu_ms_per_mb']:.2f} ({r['mb_per_s']:,.0f})" for r in found)
        print(f"{server:10} {way:8} {megabytes:4}", *(f"{cell:>16}" for cell in text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--flights", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--ways", nargs="+", default=list(S3_WAYS), choices=S3_WAYS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crt", help="directory with awscrt; without it, crt is left out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ways = [way for way in options.ways if way != "crt" or options.crt]
    rows: list[Row] = []
    for server in LATE_S:
        if server in options.servers:
            with sinking(server) as (url, environment):
                rows += measure(server, ways, url, environment, options)
    if "seaweedfs" in options.servers:
        from cluster.storage.dev_s3 import DevS3

        with DevS3() as server:
            signed = [way for way in ways if way != "http"]
            rows += measure("seaweedfs", signed, server.endpoint_url, server.env(), options)
    if "local" in options.servers:
        with tempfile.TemporaryDirectory(prefix="un0-uploads-") as directory:
            rows += measure("local", ["bytes", "chunks"], directory, {}, options)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()

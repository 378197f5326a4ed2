"""The table of benchmarks/pipeline.py --devices: simulated devices before a real S3 server."""

from __future__ import annotations

import os
import time
from typing import Any, cast

from pictures import Images
from pipeline_world import Case, Device, NoMeter, apart, images_of

from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Lane
from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import ImageEncoding


def devices(seconds: float) -> list[dict[str, Any]]:
    """Rows for simulated devices before a real S3 server."""
    rows = []
    images = apart(images_of, "bundled-32")
    with DevS3() as server:
        os.environ.update(server.env())
        store = open_store(f"{server.uri}/pipeline")
        for encoding, compression in (("png", None), ("raw", "none")):
            for rate in (10_000, 100_000, 1_000_000):
                case = Case("bundled-32", cast(ImageEncoding, encoding), compression, 2)
                rows.append(apart(run_device, case, images, rate, store, seconds))
    return rows


def run_device(
    case: Case, images: Images, rate: float, store: ObjectStore, seconds: float
) -> dict[str, Any]:
    tile = max(64, min(len(images), int(rate / 50)))
    shard_images = max(tile, min(8 * len(images), int(rate)))
    workload = case.workload(images, 10**9, shard_images)
    lane = Lane(encoders=case.threads)
    runner = ShardRunner(
        workload, Device(images[:tile], rate), NoMeter(), store, commit_here=False, lane=lane
    )
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    attempts = []
    while time.monotonic() - began_s < seconds:
        shard = workload.shard(len(attempts))
        attempts.append(runner.start(shard, f"a{shard.index}"))
    for attempt in attempts:
        attempt.result()
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    times, made = runner.times, len(attempts) * shard_images
    return {
        "encoding": case.encoding,
        "compression": case.compression,
        "device_images_per_s": rate,
        "images_per_s": made / took_s,
        "cpus_busy": cpu_s / took_s,
        "stage_share": times.shares,
        "bottleneck": times.bottleneck,
    }


def show_devices(rows: list[dict[str, Any]]) -> None:
    print("encoding   device images/s   images/s   CPUs busy   device  encode  upload   bottleneck")
    for row in rows:
        name = row["encoding"] + ("" if row["compression"] is None else f" {row['compression']}")
        shares = "  ".join(f"{share:6.1%}" for share in row["stage_share"].values())
        print(
            f"{name:10} {row['device_images_per_s']:12,} {row['images_per_s']:12,.0f} "
            f"{row['cpus_busy']:8.2f}   {shares}   {row['bottleneck']}"
        )

"""The peer for bulk generation: Ray Data ``map_batches`` + ``write_parquet``, same work.

Both sides make the same images with the same sampler and encoder settings on the same number of
replicas and threads, and write Parquet to a local directory. The window is the same: from the
moment the first replica is warm to the last byte written. Rounds are interleaved.

    python benchmarks/ray_data.py [--count 20000] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.actors.launch import fit
from cluster.actors.options import RunOptions
from cluster.clock import monotonic_s
from cluster.pipeline.encode import encode_batch
from jobs import JobSpec, generate
from un0 import DEFAULT_MODEL, Sampler, load_model
from un0.machine import usable_cpus

READERS_AND_WRITERS = 2  # Ray Data's own tasks need CPUs beside the generating actors


class Generate:
    """One Ray Data worker: a warm sampler, and the moment it became so."""

    def __init__(self, threads: int, stamps: str) -> None:
        self._sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu", threads=threads)
        self._sampler.warm_up()
        Path(stamps, f"{os.getpid()}").write_text(str(monotonic_s()))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        index = batch["id"]
        class_ids = index % 10
        images = self._sampler.generate(0, int(index[0]), class_ids)
        encoded = encode_batch(images, "png")
        return {
            "index": index,
            "class_id": class_ids,
            "image": np.array([encoded.file(i) for i in range(len(encoded))], dtype=object),
        }


def ray_data_rate(count: int, replicas: int, threads: int, batch: int) -> float:
    """Images/s of the Ray Data pipeline."""
    stamps, out = tempfile.mkdtemp(), tempfile.mkdtemp()
    ray.init(
        address="local",
        num_cpus=replicas * threads + READERS_AND_WRITERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        (
            ray.data.range(count, override_num_blocks=count // batch)
            .map_batches(
                Generate,
                fn_constructor_args=(threads, stamps),
                batch_size=batch,
                num_cpus=threads,
                compute=ray.data.ActorPoolStrategy(size=replicas),
            )
            .write_parquet(out)
        )
        ended_s = monotonic_s()
        warm_s = min(float(stamp.read_text()) for stamp in Path(stamps).iterdir())
        return count / (ended_s - warm_s)
    finally:
        ray.shutdown()
        shutil.rmtree(stamps)
        shutil.rmtree(out)


def our_rate(count: int, replicas: int) -> float:
    """Images/s of ``un0 generate``."""
    out = tempfile.mkdtemp()
    try:
        result = generate(JobSpec(count=count), out, replicas=replicas)
        return count / result.seconds
    finally:
        shutil.rmtree(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1024, help="Ray Data's batch size")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    count = -(-args.count // args.batch) * args.batch  # whole blocks: no half-filled tile
    _, share = fit(RunOptions(args.replicas), [{"CPU": float(usable_cpus())}])
    threads = share.threads
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(our_rate(count, args.replicas))
        theirs.append(ray_data_rate(count, args.replicas, threads, args.batch))
    rows = [
        {"system": "un0 generate", "images_per_s": statistics.median(ours), "rounds": ours},
        {"system": "Ray Data", "images_per_s": statistics.median(theirs), "rounds": theirs},
    ]
    ratio = statistics.median(ours) / statistics.median(theirs)
    if args.json:
        print(json.dumps({"rows": rows, "ratio": ratio, "count": count}, indent=2))
        return
    print(f"{count:,} images, {args.replicas} x {threads} threads, {args.rounds} rounds")
    for row in rows:
        spread = ", ".join(f"{rate:,.0f}" for rate in row["rounds"])
        print(f"{row['system']:14} {row['images_per_s']:8,.0f} images/s   ({spread})")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

"""One job whose bytes must never change: pixels, Parquet and ledger, held to a recorded digest.

Image i depends on (model revision, seed, i, class) only, and equal input gives equal files. Layout
changes of the code must not show here. The files' digests hold for the zstd and the PyArrow they
were made with; with others, whose files may differ, the pixels and rows alone are compared.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.clock import Anchor
from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.ledger.rows import energy_parquet, energy_table, metered_mj
from cluster.ledger.sink import Origin
from cluster.ledger.usage import EnergyRow, Use, Work
from cluster.pipeline.parquet_codecs import zstd
from cluster.pipeline.shard_runner import ShardRunner
from cluster.storage.commit import read_commits
from cluster.storage.image_rows import decode_image
from cluster.storage.open import open_store
from cluster.types import Energy, ImageEncoding, Workload
from un0 import Sampler, load_model
from un0.catalog import DEFAULT_MODEL

GOLDEN = json.loads(Path(__file__).with_name("fixtures").joinpath("fixed_job.json").read_text())
SAME_ZSTD = zstd.zstd_version == GOLDEN["zstd"]
SAME_PYARROW = pa.__version__ == GOLDEN["pyarrow"]
S = 1_000_000_000


@dataclass
class FixedMeter:
    """The same joules for every attempt."""

    hardware: str = "fixed device"

    def begin(self, *_: object) -> None:
        pass

    def end(self, *_: object) -> Energy:
        return Energy(energy_mj=1234, quality="measured_counter", method="fixed")


def job_digests(encoding: ImageEncoding, directory: Path) -> dict[str, str]:
    """SHA-256 of the job's pixels, of its other columns, and of its Parquet files, in the order of
    shards."""
    model = load_model(DEFAULT_MODEL)
    assert model.rev is not None
    size = model.config.image_size
    workload = Workload(job_id="fixed", model=DEFAULT_MODEL, model_rev=model.rev, count=100, seed=7,
                        shard_images=40, class_ids=(3, 1, 4), labels=tuple(model.labels or ()),
                        width=size, height=size, encoding=encoding)  # fmt: skip
    store = open_store(str(directory))
    runner = ShardRunner(workload, Sampler(model, device="cpu", threads=1), FixedMeter(), store)
    pixels, columns, files = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for shard in workload.shards():
        runner.run(shard, f"attempt-{shard.index}")
    for _, record in sorted(read_commits(store, "fixed").items()):
        data = store.get(record.objects[0].key)
        files.update(data)
        for row in pq.read_table(io.BytesIO(data)).to_pylist():
            pixels.update(np.asarray(decode_image(row)).tobytes())
            others = row | {"image": row["image"]["path"]}
            columns.update(json.dumps(others, sort_keys=True).encode())
    return {"pixels": pixels.hexdigest(), "columns": columns.hexdigest(),
            "files": files.hexdigest()}  # fmt: skip


def ledger_rows() -> list[EnergyRow]:
    """A device's hour: work that won, work that was lost, loading, idling and a gap."""
    ledger = Ledger(Device("GPU-1", "gpu", "fixed gpu", "gpu"), idle_power_mw=50_000)
    work = Work("fixed", 1, "rev", 16, 32, 32, "fp32")
    for minute in range(61):
        reset = minute >= 40
        ledger.read(Reading(minute * 60 * S, (minute - 40 if reset else minute) * 6_000_007,
                            "measured_counter", "fixed counter", epoch=int(reset)))  # fmt: skip
        start = minute * 60 * S
        if minute % 7 == 1:
            ledger.report(Use(start, start + 45 * S, "overhead", f"load-{minute}", "r1", work))
        elif minute % 3:
            ledger.report(Use(start, start + 50 * S, "job", f"a-{minute}", "r1", work, 101, 16))
            ledger.settle(f"a-{minute}", "lost" if minute % 5 == 0 else "won")
    return ledger.drain()


def ledger_digests() -> dict[str, str]:
    rows = ledger_rows()
    assert {row.bucket for row in rows} >= {"job", "overhead", "wasted", "idle"}
    origin = Origin("cluster", "host", Anchor(datetime(2026, 1, 1, tzinfo=UTC), 0))
    table = energy_table(rows, origin)
    data = energy_parquet(table, metered_mj(rows), closed=True)
    text = json.dumps(table.to_pylist(), default=str, sort_keys=True)
    return {"rows": hashlib.sha256(text.encode()).hexdigest(),
            "files": hashlib.sha256(data).hexdigest()}  # fmt: skip


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_a_fixed_job_has_the_same_pixels_and_files_as_ever(
    encoding: ImageEncoding, tmp_path: Path
) -> None:
    found = job_digests(encoding, tmp_path)
    assert found["pixels"] == GOLDEN["jobs"][encoding]["pixels"]
    assert found["columns"] == GOLDEN["jobs"][encoding]["columns"]
    if SAME_ZSTD:
        assert found["files"] == GOLDEN["jobs"][encoding]["files"]


def test_a_fixed_hour_has_the_same_ledger_as_ever() -> None:
    found = ledger_digests()
    assert found["rows"] == GOLDEN["ledger"]["rows"]
    if SAME_PYARROW:
        assert found["files"] == GOLDEN["ledger"]["files"]

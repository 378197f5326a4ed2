"""Image files: every common reader opens them, and gets back what was generated."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.errors import UserError
from cluster.pipeline.encode import encode_batch
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.image_rows import decode_image
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import MISSING_ENERGY, Energy, ImageEncoding
from tests.support import jobfactory

LOSSLESS = ("png", "webp", "raw")
MEASURED = Energy(energy_mj=7000, quality="measured_counter", method="test")


def smooth(count: int, side: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(count, side, side, 3): colour gradients, each another way."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    planes = [(x * i + y * (count - i)) * 255 // (side * count) for i in range(count)]
    return np.stack([np.stack([p, p[::-1], 255 - p], axis=-1) for p in planes]).astype(np.uint8)


@pytest.mark.parametrize("encoding", LOSSLESS)
def test_lossless_encodings_give_the_same_pixels_back(encoding: ImageEncoding) -> None:
    images = np.random.default_rng(1).integers(0, 256, (9, 16, 24, 3), np.uint8)
    encoded = encode_batch(images, encoding).files()
    decoded = [np.asarray(decode_image({"image": {"bytes": data}})) for data in encoded]
    assert np.array_equal(np.stack(decoded), images)


def test_jpeg_stays_close() -> None:
    images = smooth(5)
    decoded = [np.asarray(Image.open(io.BytesIO(d))) for d in encode_batch(images, "jpeg").files()]
    assert np.square(np.stack(decoded) - images.astype(float)).mean() < 4  # 42 dB


def test_raw_images_have_one_size() -> None:
    sizes = {len(data) for data in encode_batch(smooth(5), "raw").files()}
    assert len(sizes) == 1
    assert sizes.pop() - 32 * 32 * 3 < 16


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((1, 8, 8, 3)), np.zeros((1, 3, 8, 8), np.uint8)],
)
def test_anything_but_rgb_bytes_is_refused(images: Any) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        encode_batch(images, "png")


@pytest.mark.parametrize("data", [b"", b"P6 8 8 255\n" + b"x" * 191, None])
def test_what_is_no_picture_does_not_decode(data: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"does not decode|no picture"):
        decode_image({"image": {"bytes": data}})


@pytest.mark.parametrize("encoding", get_args(ImageEncoding))
def test_hugging_face_datasets_shows_pictures(encoding: ImageEncoding, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    job = jobfactory.workload(encoding=encoding)
    file = tmp_path / "images.parquet"
    file.write_bytes(jobfactory.parquet(job, job.shard(1)))
    rows = datasets.load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows.column_names == IMAGE_SCHEMA.names
    assert [str(rows.features[name].dtype) for name in ("index", "seed", "energy_j")] == [
        "int64",
        "uint64",
        "float64",
    ]
    expected = jobfactory.pixels(job, 6, 12)
    for row, picture in zip(rows, expected, strict=True):
        assert isinstance(row["image"], Image.Image)
        assert row["image"].size == (8, 8)
        if encoding in LOSSLESS:
            assert np.array_equal(np.asarray(row["image"]), picture)
    assert rows["index"][:] == list(range(6, 12))


def test_duckdb_and_pandas_read_every_column(tmp_path: Path) -> None:
    job = jobfactory.workload()
    file = tmp_path / "images.parquet"
    file.write_bytes(jobfactory.parquet(job, job.shard(1), MEASURED))
    with duckdb.connect() as connection:
        cursor = connection.execute(f"select * from '{file}' order by index")
        names = [column[0] for column in cursor.description]
        from_duckdb = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    from_pandas = pd.read_parquet(file).to_dict("records")
    classes = [0, 2, 1, 0, 2, 1]  # 6 to 11, dealt out in turn
    for rows in (from_duckdb, from_pandas):
        assert [row["index"] for row in rows] == list(range(6, 12))
        assert [row["class_id"] for row in rows] == classes
        labels = [None if pd.isna(row["label"]) else row["label"] for row in rows]
        assert labels == ["ant", None, "bee"] * 2
        for row in rows:
            assert row["image_id"] == f"job-{row['index']:010d}"
            assert row["image"]["path"] == f"{row['image_id']}.png"
            assert row["seed"] == 2**64 - 1
            assert (row["job_id"], row["model"], row["model_rev"]) == ("job", "test/tiny", "rev-1")
            assert (row["width"], row["height"], row["hardware"]) == (8, 8, jobfactory.HARDWARE)
            assert row["energy_quality"] == "measured_counter"
        assert sum(row["energy_j"] for row in rows) == pytest.approx(7)
        pixels = np.stack([np.asarray(decode_image(row)) for row in rows])
        assert np.array_equal(pixels, jobfactory.pixels(job, 6, 12))


def test_unknown_energy_stays_null_in_aggregates(tmp_path: Path) -> None:
    job = jobfactory.workload()
    for index, energy in enumerate((MISSING_ENERGY, jobfactory.ESTIMATE)):
        file = tmp_path / f"{index}.parquet"
        file.write_bytes(jobfactory.parquet(job, job.shard(index), energy))
    with duckdb.connect() as connection:
        totals = connection.execute(
            "select energy_quality, count(*), count(energy_j), sum(energy_j), sum(energy_low_j), "
            f"sum(energy_high_j) from '{tmp_path}/*.parquet' group by all order by all"
        ).fetchall()
    assert totals == [
        ("estimated", 6, 6, pytest.approx(3), pytest.approx(1), pytest.approx(9)),
        ("missing", 6, 0, None, None, None),
    ]
    assert np.isnan(pd.read_parquet(tmp_path / "0.parquet")["energy_j"].mean())


def test_a_measurement_has_no_bounds() -> None:
    job = jobfactory.workload()
    table = pq.read_table(io.BytesIO(jobfactory.parquet(job, job.shard(0), MEASURED)))
    assert table["energy_low_j"].null_count == table["energy_high_j"].null_count == 6


def test_equal_input_gives_equal_bytes() -> None:
    job = jobfactory.workload()
    assert jobfactory.parquet(job, job.shard(2)) == jobfactory.parquet(job, job.shard(2))


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_row_groups_are_some_16_mb_and_can_be_skipped(encoding: ImageEncoding) -> None:
    job = jobfactory.workload(count=200, shard_images=200, width=256, height=256, encoding="raw")
    noise = np.random.default_rng(1)
    shard = job.shard(0)
    data = shard_parquet(
        job.model_copy(update={"encoding": encoding}),
        shard,
        job.classes_of(0, 200),
        [Encoded.of(noise.bytes(256 * 256 * 3 + 15) for _ in range(200))],
        MEASURED,
        "test",
    )
    file = pq.ParquetFile(io.BytesIO(bytes(data)))
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [85, 85, 30]
    columns = {groups[1].column(i).path_in_schema: groups[1].column(i) for i in range(17)}
    assert (columns["index"].statistics.min, columns["index"].statistics.max) == (85, 169)
    assert columns["image.bytes"].total_uncompressed_size <= 17 * 2**20
    names = {name: column.compression for name, column in columns.items()}
    assert names["image.bytes"] == "UNCOMPRESSED", "noise does not shrink"
    assert names["image_id"] == names["image.path"] == "ZSTD"


def test_counts_that_do_not_fit_together_are_refused() -> None:
    job = jobfactory.workload()
    with pytest.raises(ValueError, match="6 rows, not 6 class ids and 1 images"):
        shard_parquet(
            job, job.shard(0), job.classes_of(0, 6), [Encoded.of([b""])], MEASURED, "test"
        )


def test_a_shard_too_large_for_a_file_says_what_to_lower() -> None:
    job = jobfactory.workload(count=3000, shard_images=3000)
    tile = Encoded.of([bytes(2**20)] * 100)
    with pytest.raises(UserError, match="lower shard_images from 3000"):
        shard_parquet(job, job.shard(0), job.classes_of(0, 3000), [tile] * 30, MEASURED, "test")

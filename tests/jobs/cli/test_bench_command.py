"""``un0 bench`` as scripts use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import un0, un0_json


@pytest.mark.slow
def test_scripts_get_every_path_by_batch_with_its_joules() -> None:
    report = un0_json("bench", "--seconds", "0.05", "--batches", "1,3", "--device", "cpu")
    rows = report["rows"]
    assert report["device"] == "cpu"
    assert len(report["model_rev"]) == 64
    paths = {(row["engine"], row["precision"]) for row in rows}
    assert {("un0-cpu", "fp32"), ("un0-eager", "fp32"), ("un0-eager", "bf16")} <= paths
    assert [row["batch"] for row in rows] == [1, 3] * len(paths)
    for row in rows:
        assert row["images_per_s"] > 0
        if row["energy_quality"] == "missing":
            assert row["energy_per_image_j"] is None
        elif row["energy_quality"] == "estimated":
            bounds = row["energy_low_j"], row["energy_per_image_j"], row["energy_high_j"]
            assert list(bounds) == sorted(bounds)
        assert (row["roofline_share"] is None) == (row["precision"] == "int8")


def test_it_says_what_there_is_when_nothing_fits() -> None:
    done = un0("bench", "--device", "cpu", "--precision", "fp16")
    assert done.returncode == 2
    assert "eager in fp32" in done.stderr
    done = un0("bench", "--batches", "1,x")
    assert done.returncode == 2
    assert "--batches is '1,x'" in done.stderr


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and windows of the whole path that take no time; what they hold is tested elsewhere
    (tests/cluster/test_end_to_end.py)."""
    monkeypatch.setattr("cluster.end_to_end.SHARD_S", 0.01)


@pytest.mark.usefixtures("short")
def test_the_whole_path_is_measured_by_encoding() -> None:
    report = un0_json(
        "bench", "--seconds", "0.05", "--device", "cpu", "--precision", "fp32", "--engine", "cpu",
        "--encoding", "png,raw", "--compression", "lz4",
    )  # fmt: skip
    png, raw = report["rows"]
    assert (png["encoding"], png["compression"]) == ("png", None)
    assert (raw["encoding"], raw["compression"]) == ("raw", "lz4")
    for row in (png, raw):
        assert (row["engine"], row["precision"]) == ("un0-cpu", "fp32")
        assert row["images_per_s"] > 0
        assert row["engine_share"] == row["images_per_s"] / row["engine_images_per_s"]
        assert row["bytes_per_image"] > 100
        assert set(row["stage_share"]) == {"device", "encode", "upload"}
        assert row["bottleneck"] in row["stage_share"]
        assert row["host_energy_per_image_j"] is row["host_energy_quality"] is None
        assert (row["energy_per_image_j"] is None) == (row["energy_quality"] == "missing")


@pytest.mark.usefixtures("short")
def test_a_store_of_ones_own_is_left_as_it_was(tmp_path: Path) -> None:
    done = un0(
        "bench", "--seconds", "0.05", "--device", "cpu", "--precision", "fp32", "--engine", "cpu",
        "--encoding", "raw", "--store", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0
    assert "raw zstd" in done.stdout
    assert "bottleneck" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--encoding", "pgn"], "did you mean 'png'?"),
        (["--encoding", "raw", "--compression", "gzip"], "choose one of none, lz4, zstd"),
        (["--encoding", "png", "--compression", "lz4"], "add raw"),
        (["--compression", "lz4"], "name an --encoding"),
        (["--store", "there"], "name an --encoding"),
        (["--encoding", "png", "--batches", "8"], "--batches is of engines alone"),
    ],
)
def test_flags_of_the_whole_path_that_make_no_sense_say_why(flags: list[str], says: str) -> None:
    done = un0("bench", *flags)
    assert done.returncode == 2
    assert says in done.stderr

"""``un0 bench`` as scripts use it."""

from __future__ import annotations

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

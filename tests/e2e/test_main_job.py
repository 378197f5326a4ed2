"""The main job as a user runs it: real Ray, real files, real S3, the bundled model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from cluster.storage.dev_s3 import DevS3
from tests.support.cli import un0, un0_json

COUNT = 1500


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An undisturbed run of the job on one replica."""
    store = str(tmp_path_factory.mktemp("reference"))
    result = un0_json("generate", "--count", str(COUNT), "--store", store, "--replicas", "1",
                      "--shard-images", "256", "--job-id", "reference", "--seed", "3")  # fmt: skip
    return {**result, "path": store, "verify": un0_json("verify", "reference", "--store", store)}


def test_the_result_says_what_scripts_rely_on(reference: dict[str, Any]) -> None:
    assert reference["job_id"] == "reference"
    assert reference["store"].startswith("file:///")
    assert reference["state"] == "completed"
    assert reference["images"] == COUNT
    assert reference["seconds"] > 0
    assert reference["images_per_s"] == pytest.approx(COUNT / reference["seconds"], rel=0.01)
    assert 0 < reference["generate_share"] <= 1


def test_joules_are_an_estimate_with_bounds_on_a_machine_without_a_counter(
    reference: dict[str, Any],
) -> None:
    if reference["energy_quality"] != "estimated":
        pytest.skip("this machine measures its energy")
    assert 0 < reference["energy_low_j"] < reference["energy_j"] < reference["energy_high_j"]


def test_verify_finds_every_image_once(reference: dict[str, Any]) -> None:
    assert reference["verify"]["ok"] is True
    assert reference["verify"]["images"] == COUNT
    assert reference["verify"]["problems"] == []


def test_duckdb_reads_the_files_without_this_project(reference: dict[str, Any]) -> None:
    glob = f"{reference['path']}/jobs/reference/attempts/*/*/images.parquet"
    count, distinct, low, high, joules = duckdb.sql(
        "select count(*), count(distinct index), min(index), max(index), sum(energy_j) "
        f"from read_parquet('{glob}')"
    ).fetchall()[0]
    assert (count, distinct, low, high) == (COUNT, COUNT, 0, COUNT - 1)
    assert joules == pytest.approx(reference["energy_j"], abs=1e-3 * COUNT)


def test_the_job_is_listed_and_can_be_queried(reference: dict[str, Any]) -> None:
    (job,) = un0_json("jobs", "--store", reference["path"])
    assert (job["job_id"], job["state"], job["images"]) == ("reference", "completed", COUNT)
    rows = un0_json("query", "select label, count(*) n from images group by label",
                    "--store", reference["path"])  # fmt: skip
    assert {row["n"] for row in rows} == {COUNT // 10}


def test_resuming_a_finished_job_changes_nothing(reference: dict[str, Any]) -> None:
    again = un0_json("resume", "reference", "--store", reference["path"])
    assert (again["state"], again["images"]) == ("completed", COUNT)
    assert again["energy_j"] == reference["energy_j"]


def test_the_same_job_id_is_refused(reference: dict[str, Any]) -> None:
    refused = un0("generate", "--count", "10", "--store", reference["path"],
                  "--job-id", "reference")  # fmt: skip
    assert refused.returncode == 2
    assert "un0 resume reference" in refused.stderr


def test_other_replicas_shards_store_and_encoding_give_the_same_pixels(
    reference: dict[str, Any], s3: DevS3
) -> None:
    store = f"{s3.uri}/same-pixels"
    result = un0_json("generate", "--count", str(COUNT), "--store", store, "--replicas", "3",
                      "--shard-images", "1000", "--job-id", "other", "--seed", "3",
                      "--encoding", "raw")  # fmt: skip
    assert result["state"] == "completed"
    report = un0_json("verify", "other", "--store", store)
    assert report["ok"] is True
    assert report["pixel_sha256"] == reference["verify"]["pixel_sha256"]


def test_a_contact_sheet(reference: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    done = un0("grid", "reference", "--store", reference["path"], "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    with Image.open(out) as sheet:
        size = {"width": sheet.width, "height": sheet.height}
    printed = un0_json("grid", "reference", "--store", reference["path"], "--out", str(out))
    assert printed == {"job_id": "reference", "path": str(out), **size}


def test_an_exported_model_is_reported_by_path_and_revision(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    printed = un0_json("export", "fashion32/n512", str(out))
    revision = hashlib.sha256(out.read_bytes()).hexdigest()
    assert printed == {"path": str(out), "revision": revision, "dtype": "fp32"}


def test_the_python_interface(tmp_path: Path) -> None:
    from jobs import JobSpec, generate

    spec = JobSpec(count=130, classes={"Bag": 3.0, "Sneaker": 1.0}, shard_images=64)
    seen = []
    result = generate(spec, str(tmp_path), on_snapshot=seen.append)
    assert (result.state, result.images) == ("completed", 130)
    assert seen[-1].committed_images == 130
    rows = un0_json("query", "select label, count(*) n from images group by label order by n",
                    "--store", str(tmp_path))  # fmt: skip
    assert [row["label"] for row in rows] == ["Sneaker", "Bag"]
    assert abs(rows[0]["n"] - 130 / 4) <= 2

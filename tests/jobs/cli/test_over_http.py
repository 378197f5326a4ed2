"""The service's commands with UN0_SERVER set: the same answers as over the store."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.storage.object_store import ObjectStore
from jobs.server.http import AuthOptions  # noqa: F401  # FastAPI is there
from jobs.service.core import StoreService
from jobs.service.views import JobFilter
from tests.support import jobfactory
from tests.support.cli import un0, un0_json
from tests.support.effort import costly
from tests.support.httpapp import served


@pytest.fixture
def place(local: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store whose server the environment names."""
    with served(local, StoreService(local, reads_files=False), monkeypatch) as url:
        monkeypatch.setenv("UN0_SERVER", url)
        yield local


def test_a_job_goes_through_its_life(place: ObjectStore) -> None:
    job_id = un0_json("submit", "--count", "100", "--label", "team=x")["job_id"]
    assert un0_json("status", job_id)["state"] == "queued"
    assert [job["job_id"] for job in un0_json("jobs")] == [job_id]
    assert un0_json("pause", job_id)["state"] == "paused"
    assert un0_json("resume", job_id)["state"] == "queued"
    assert un0_json("cancel", job_id, "--reason", "enough")["state"] == "cancelled"
    refused = un0("pause", job_id)
    assert refused.returncode == 2
    assert "cancelled" in refused.stderr
    over_http, over_store = un0_json("status", job_id), StoreService(place).status(job_id)
    assert over_http["counts"] == over_store.counts.model_dump(mode="json")
    assert "enough" in un0("logs", job_id).stdout


@pytest.mark.parametrize("library", costly("duckdb", "pandas", "datasets", fast=1))
def test_snippets_work_when_pasted(library: str, place: ObjectStore) -> None:
    jobfactory.write_job(place, jobfactory.workload("job"), shards=[0, 2], finish=False)
    snippet = un0("results", "job", "--format", library).stdout
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(snippet, names)
    assert printed.getvalue().strip()
    assert len(names["images"]) == 12  # type: ignore[arg-type]


def test_the_server_reads_no_file_of_its_own_for_a_client(
    place: ObjectStore, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("class\n0\n1\n")
    refused = un0("submit", "--inputs", str(rows))
    assert refused.returncode == 2
    assert "store:" in refused.stderr, "where rows may be"
    assert StoreService(place).jobs(JobFilter()).jobs == ()

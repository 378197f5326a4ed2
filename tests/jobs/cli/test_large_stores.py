"""`un0 jobs` by pages and `un0 verify --sample`, as users and scripts see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support import jobfactory
from tests.support.cli import un0, un0_json


@pytest.fixture
def place(memory_dir: Path) -> str:
    store: ObjectStore = open_store(str(memory_dir), probe=False)
    for number in range(60):
        jobfactory.submit(store, jobfactory.workload(f"job-{number:02d}"))
    return str(memory_dir)


def test_scripts_get_all_jobs_or_the_page_they_ask_for(place: str) -> None:
    everything = [row["job_id"] for row in un0_json("jobs", "--store", place)]
    assert everything == [f"job-{number:02d}" for number in range(60)]
    page = un0_json("jobs", "--store", place, "--limit", "2", "--after", "job-41")
    assert [row["job_id"] for row in page] == ["job-40", "job-39"]
    assert len(un0_json("jobs", "--store", place, "--after", "job-55")) == 50
    piped = un0("jobs", "--store", place).stdout
    assert sum("job-" in line for line in piped.splitlines()) == 60


def test_a_page_says_how_to_go_on(place: str) -> None:
    shown = un0("jobs", "--store", place, "--limit", "50").stdout
    assert "10 more: un0 jobs --after job-10" in shown
    assert "job-09" not in shown
    last = un0("jobs", "--store", place, "--limit", "50", "--after", "job-10").stdout
    assert "more:" not in last
    assert "job-00" in last
    assert "no jobs after" in un0("jobs", "--store", place, "--after", "job-00").stdout


def test_a_terminal_shows_the_newest_fifty(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cli.jobs._on_terminal", lambda: True)
    shown = un0("jobs", "--store", place).stdout
    assert "10 more:" in shown
    assert len(un0_json("jobs", "--store", place)) == 60


def test_verify_says_that_it_was_a_sample(place: str) -> None:
    job = jobfactory.workload("job-60", count=20, shard_images=2)
    jobfactory.write_job(open_store(place, probe=False), job)
    found = un0_json("verify", "job-60", "--store", place, "--sample", "4", "--seed", "7")
    assert (found["ok"], found["images"], found["pixel_sha256"]) == (True, 8, None)
    assert found["sample"] == {"shards": 4, "of": 10, "seed": 7}
    shown = un0("verify", "job-60", "--store", place, "--sample", "4").stdout
    assert "4 of 10 shards were opened (--seed " in shown
    assert un0_json("verify", "job-60", "--store", place)["sample"] is None
    refused = un0("verify", "job-60", "--store", place, "--seed", "7")
    assert refused.returncode == 2
    assert "--sample" in refused.stderr

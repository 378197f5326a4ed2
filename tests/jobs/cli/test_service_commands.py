"""Submitting jobs and asking after them, as users and scripts do. Snippets work when pasted."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.storage.history import append_event
from cluster.storage.intents import want
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from tests.support import jobfactory
from tests.support.cli import un0, un0_json
from tests.support.effort import costly
from tests.support.fake_server import FakeServer, without_models

JOB = ("--count", "40", "--shard-images", "10")


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    without_models(monkeypatch)
    monkeypatch.setattr("jobs.service.connect.PATIENCE_S", 0.0)
    monkeypatch.delenv("UN0_SERVER", raising=False)


@pytest.fixture
def place(memory_dir: Path) -> str:
    return str(memory_dir)


def submitted(place: str, *args: str) -> str:
    job_id: str = un0_json("submit", *JOB, "--store", place, *args)["job_id"]
    return job_id


def test_submit_prints_what_to_do_next(place: str, local: ObjectStore) -> None:
    done = un0("submit", *JOB, "--store", place)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.split()[1].rstrip(":")
    assert f"un0 watch {job_id} --store {place}" in done.stdout
    assert "un0 serve --store" in done.stdout
    assert "un0 calibrate" in done.stderr
    assert FakeServer(local, "s").jobs() == [job_id]


def test_scripts_get_the_names_they_rely_on(place: str) -> None:
    job = un0_json("submit", *JOB, "--store", place, "--owner", "ann", "--label", "a=b")
    assert job["state"] == "queued"
    names = {"energy_j", "energy_low_j", "energy_high_j", "seconds", "images_per_hardware"}
    assert names <= job["quote"].keys()
    status = un0_json("status", job["job_id"], "--store", place)
    assert status.keys() >= {"job_id", "state", "reason", "counts", "energy"}
    assert status["counts"] == {"total": 40, "committed": 0, "in_flight": 0, "failed": 0}
    assert status["reason"]["code"] == "waiting_for_server"
    paused = un0_json("pause", job["job_id"], "--store", place, "--reason", "lunch")
    assert (paused["state"], paused["reason"]["message"].endswith(": lunch")) == ("paused", True)
    assert un0_json("resume", job["job_id"], "--store", place)["state"] == "queued"
    assert un0_json("cancel", job["job_id"], "--store", place)["state"] == "cancelled"
    late = un0("resume", job["job_id"], "--store", place)
    assert (late.returncode, "is cancelled" in late.stderr) == (2, True)


def test_a_dry_run_and_a_quote_write_nothing(place: str, local: ObjectStore) -> None:
    dry = un0_json("submit", *JOB, "--store", place, "--dry-run")
    assert (dry["job_id"], dry["quote"]["energy_j"]) == (None, None)
    assert un0_json("quote", *JOB, "--store", place)["notes"]
    assert "40 images: unknown" in un0("quote", *JOB, "--store", place).stdout
    assert list(local.list("")) == []
    wrong = un0("submit", "--count", "-1", "--store", place, "--dry-run")
    assert wrong.returncode == 2


def test_a_key_makes_one_job(place: str) -> None:
    first = submitted(place, "--idempotency-key", "k")
    assert submitted(place, "--idempotency-key", "k") == first
    other = un0("submit", "--count", "1", "--store", place, "--idempotency-key", "k")
    assert (other.returncode, first in other.stderr) == (2, True)


def test_waiting_ends_with_the_job(
    place: str, local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeServer(local, "s1")

    def work(_: float) -> None:
        server.beat()
        for job_id in server.jobs():
            server.step(job_id)

    monkeypatch.setattr("jobs.cli.watch.time.sleep", work)
    done = un0("submit", *JOB, "--store", place, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "completed"
    job_id = submitted(place)
    watched = un0("watch", job_id, "--store", place)
    assert watched.returncode == 0
    assert f"{job_id} running" in watched.stderr
    assert "40 of 40 committed" in watched.stdout


def test_to_stop_watching_is_no_failure(
    place: str, monkeypatch: pytest.MonkeyPatch, local: ObjectStore
) -> None:
    job_id = submitted(place)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.cli.watch.time.sleep", interrupt)
    watched = un0("watch", job_id, "--store", place)
    assert (watched.returncode, "detached" in watched.stderr) == (0, True)
    assert FakeServer(local, "s").jobs() == [job_id]
    everything = un0("watch", "--store", place)
    assert (everything.returncode, job_id in everything.stdout) == (0, True)


def test_lists_are_filtered(place: str) -> None:
    first = submitted(place, "--owner", "ann", "--label", "team=a", "--job-id", "a")
    second = submitted(place, "--owner", "bob", "--job-id", "b")
    un0("cancel", second, "--store", place)

    def found(*args: str) -> list[str]:
        return [row["job_id"] for row in un0_json("jobs", "--store", place, *args)]

    assert found() == [first, second]
    assert found("--state", "queued") == found("--active") == found("--owner", "ann") == [first]
    assert found("--state", "cancelled") == [second]
    assert found("--label", "team=a", "--since", "1h") == [first]
    assert found("--since", "2020-01-01T00:00Z", "--limit", "1") == [second]
    row = un0_json("jobs", "--store", place)[0]
    assert row["energy"] == {
        "energy_mj": None, "low_mj": None, "high_mj": None, "quality": "missing", "method": "none",
    }  # fmt: skip
    wrong = un0("jobs", "--store", place, "--state", "lost")
    assert (wrong.returncode, "completed_with_errors" in wrong.stderr) == (2, True)
    assert "no such jobs" in un0("jobs", "--store", place, "--owner", "eve").stdout


def test_logs_are_one_timeline(place: str, local: ObjectStore) -> None:
    job_id = submitted(place)
    decision = {
        "run_id": "r", "at": "2020-01-01T00:00:00Z", "kind": "wake", "plan": 1, "why": "work",
        "hardware": "cpu",
    }  # fmt: skip
    lease = decision | {"kind": "lease", "why": "next shards"}
    lines = "".join(json.dumps(line) + "\n" for line in (decision, lease))
    local.put(JobLayout(job_id).decisions_of("r", 0), lines.encode())
    append_event(local, job_id, "note", "a word", datetime.now(UTC), by="s1")
    shown = un0("logs", job_id, "--store", place).stdout.splitlines()
    assert [line.split()[2] for line in shown] == ["wake", "submitted", "note"]
    assert len(un0_json("logs", job_id, "--store", place, "--leases")) == 4
    un0("cancel", job_id, "--store", place)
    followed = un0("logs", job_id, "--store", place, "--follow", "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in followed][-2:] == ["intent", "state"]


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("library", costly("duckdb", "pandas", "datasets", fast=1))
def test_snippets_work_when_pasted(
    library: str, complete: bool, memory_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cluster.storage.open import open_store

    place = str(memory_dir / "it's [here]")
    job = jobfactory.workload("job")
    jobfactory.write_job(
        open_store(place), job, shards=None if complete else [0, 2], finish=complete
    )
    snippet = un0("results", "job", "--store", place, "--format", library).stdout
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(snippet, names)
    assert capsys.readouterr().out.strip()
    images = names["images"]
    rows = len(images)  # type: ignore[arg-type]
    assert rows == (20 if complete else 12)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("library", ["duckdb", "pandas", "datasets"])
def test_snippets_of_s3_work_when_pasted(
    library: str, complete: bool, s3_store: ObjectStore
) -> None:
    job = jobfactory.workload("job")
    jobfactory.write_job(s3_store, job, shards=None if complete else [0, 2], finish=complete)
    uri = s3_store.config.uri
    snippet = un0("results", "job", "--store", uri, "--format", library).stdout
    out = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(out):
        exec(snippet, names)
    assert names["images"].count_rows() == (20 if complete else 12)  # type: ignore[attr-defined]


def test_results_name_the_committed_files(place: str, local: ObjectStore) -> None:
    job = jobfactory.workload("job")
    records = jobfactory.write_job(local, job, shards=[1, 3], finish=False)
    wanted = [f"{local.config.uri}/{record.objects[0].key}" for record in records]
    assert un0("results", "job", "--store", place).stdout.splitlines() == wanted
    found = un0_json("results", "job", "--store", place)
    assert (found["uris"], found["complete"], found["committed_shards"]) == (wanted, False, 2)
    empty = submitted(place)
    assert un0("results", empty, "--store", place).stdout == ""
    assert un0("results", empty, "--store", place, "--format", "pandas").returncode == 2


def test_gc_deletes_what_nobody_needs_and_nothing_else(
    place: str, local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.service.gc.SILENCE_S", 0.0)
    done, open_job = jobfactory.workload("done"), jobfactory.workload("open")
    records = jobfactory.write_job(local, done)
    jobfactory.write_job(local, open_job, shards=[0], finish=False)
    orphan = JobLayout("done").images(0, "zombie")
    under_way = JobLayout("open").images(1, "new")
    for key in (orphan, under_way):
        local.put(key, b"x")
    recent = submitted(place, "--idempotency-key", "k")
    long_ago = datetime.now(UTC) - timedelta(days=3)
    want(local, "half", "run", long_ago, by="ann")
    local.put(JobLayout("half").active, b"")
    want(local, "just-begun", "run", datetime.now(UTC), by="ann")
    before = {info.key for info in local.list("")}
    listed = {row["key"] for row in un0_json("gc", "--store", place)}
    assert listed == {orphan, JobLayout("half").active, JobLayout("half").intent(1)}
    assert {info.key for info in local.list("")} == before
    assert "run it again with --yes" in un0("gc", "--store", place).stdout
    assert un0("gc", "--store", place, "--yes").returncode == 0
    assert {info.key for info in local.list("")} == before - listed
    assert "nothing to delete" in un0("gc", "--store", place).stdout
    assert local.get(records[0].objects[0].key)
    assert un0_json("status", recent, "--store", place)["state"] == "queued"


def test_gc_forgets_dead_servers_and_old_keys(
    place: str, local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.service.gc.SILENCE_S", 0.2)
    monkeypatch.setattr("jobs.service.presence.LOOK_S", 0.05)
    old = datetime.now(UTC) - timedelta(days=8)
    dead = FakeServer(local, "dead")
    dead.beat(old)
    FakeServer(local, "alive").beat()
    submitted(place, "--idempotency-key", "k")
    [key] = [info.key for info in local.list("service/idempotency/")]
    fields = json.loads(local.get(key))
    local.put(key, json.dumps(fields | {"at": old.isoformat()}).encode())
    gone = {row["key"] for row in un0_json("gc", "--store", place, "--yes")}
    assert gone == {key, "service/servers/dead.json"}

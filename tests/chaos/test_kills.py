"""Kill things in the middle: what is committed stays, and resume makes the same images."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.storage.commit import committed_shards
from cluster.storage.dev_s3 import DevS3
from cluster.storage.open import open_store
from tests.support.cli import AT_WORK, running, un0, un0_json

pytestmark = [pytest.mark.ray, pytest.mark.slow]
JOB = ("--count", "12000", "--shard-images", "256", "--seed", "5", "--job-id", "job")
SHARDS = -(-12000 // 256)


@pytest.fixture(scope="module")
def undisturbed_sha256(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = str(tmp_path_factory.mktemp("undisturbed"))
    un0_json("generate", *JOB, "--store", store)
    return str(un0_json("verify", "job", "--store", store)["pixel_sha256"])


def committed(store: str) -> int:
    return len(committed_shards(open_store(store, probe=False), "job"))


def assert_whole(store: str, sha256: str) -> None:
    report = un0_json("verify", "job", "--store", store)
    assert report["ok"] is True
    assert report["pixel_sha256"] == sha256


def test_a_killed_replica_is_replaced(tmp_path: Path, undisturbed_sha256: str) -> None:
    store = str(tmp_path)
    with running("generate", *JOB, "--store", store, "--replicas", "2", "--json") as command:
        command.until(lambda: committed(store) >= 3)
        at_work: list[psutil.Process] = []
        command.until(lambda: bool(at_work.extend(command.replicas(AT_WORK)) or at_work))
        at_work[0].send_signal(signal.SIGKILL)
        assert command.wait() == 0, command.stderr
        result = json.loads(command.stdout)
    assert result["state"] == "completed"
    assert result["retries"] >= 1
    assert_whole(store, undisturbed_sha256)


def test_after_a_power_cut_resume_completes_the_job(s3: DevS3, undisturbed_sha256: str) -> None:
    store = f"{s3.uri}/power-cut"
    with running("generate", *JOB, "--store", store, "--json") as command:
        command.until(lambda: committed(store) >= 3)
        command.kill_everything()
    before = committed(store)
    assert 3 <= before < SHARDS
    (job,) = un0_json("jobs", "--store", store)
    assert job["state"] == "incomplete"
    partial = un0("verify", "job", "--store", store, "--json")
    assert partial.returncode == 1
    assert json.loads(partial.stdout)["problems"]
    result = un0_json("resume", "job", "--store", store)
    assert result["state"] == "completed"
    assert_whole(store, undisturbed_sha256)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(
    tmp_path: Path, undisturbed_sha256: str
) -> None:
    store = str(tmp_path)
    with running("generate", *JOB, "--store", store, "--json") as command:
        command.until(lambda: committed(store) >= 2)
        command.interrupt()
        assert command.wait() == 130
        result: dict[str, Any] = json.loads(command.stdout)
        assert "un0 resume job" in command.stderr
        assert "Traceback" not in command.stderr
    assert result["state"] == "stopped"
    assert 0 < result["images"] < 12000
    un0_json("resume", "job", "--store", store)
    assert_whole(store, undisturbed_sha256)


def test_ctrl_c_before_there_is_a_replica_stops_too(tmp_path: Path) -> None:
    store = str(tmp_path)
    with running("generate", *JOB, "--store", store, "--json") as command:
        command.until(lambda: (tmp_path / "jobs/job/spec.json").exists())
        command.interrupt()
        assert command.wait() == 130
        assert "un0 resume job" in command.stderr
        result: dict[str, Any] = json.loads(command.stdout)
    assert result["state"] == "stopped"
    assert result["images"] == 0
    assert result["energy_j"] is None
    assert result["energy_quality"] == "missing"


def test_a_failing_resume_does_not_end_a_job_that_another_run_completes(tmp_path: Path) -> None:
    store, model = str(tmp_path / "store"), tmp_path / "model.safetensors"
    assert un0("export", "fashion32/n512", str(model)).returncode == 0
    with running("generate", str(model), *JOB, "--store", store, "--json") as command:
        command.until(lambda: committed(store) >= 2)
        moved = model.rename(tmp_path / "moved.safetensors")
        refused = un0("resume", "job", "--store", store)
        assert refused.returncode == 2
        assert "model.safetensors" in refused.stderr
        assert command.wait() == 0, command.stderr
        assert json.loads(command.stdout)["state"] == "completed"
    assert un0_json("verify", "job", "--store", store)["ok"] is True
    (job,) = un0_json("jobs", "--store", store)
    assert job["state"] == "completed"
    again = un0_json("resume", "job", "--store", store, "--model", str(moved))
    assert again["images"] == 12000


def test_a_store_that_stays_away_fails_the_job_with_the_reason_and_the_way_on() -> None:
    with DevS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env().items():
            patch.setenv(name, value)
        store = f"{server.uri}/gone"
        with running("generate", *JOB, "--store", store, "--json") as command:
            command.until(lambda: committed(store) >= 2)
            server.stop(kill=True)
            assert command.wait() == 1
            result: dict[str, Any] = json.loads(command.stdout)
            assert "stayed away" in result["reason"]
            assert "un0 resume job" in command.stderr
        assert result["state"] == "failed"


def test_a_store_that_goes_away_and_comes_back_costs_no_image(undisturbed_sha256: str) -> None:
    with DevS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env().items():
            patch.setenv(name, value)
        store = f"{server.uri}/outage"
        with running("generate", *JOB, "--store", store, "--json") as command:
            command.until(lambda: committed(store) >= 2)
            server.stop(kill=True)
            server.start()
            assert command.wait() == 0, command.stderr
        assert_whole(store, undisturbed_sha256)

"""`un0 serve` on real Ray: jobs are run to their ends, whatever is killed or stands still."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.storage.commit import ended_state, find_manifest
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.servers import newest_run, read_beats
from tests.support.cli import AT_WORK, Running, running, un0, un0_json
from tests.support.serving import (
    committed,
    holder,
    state,
    submit_job,
    supervisor_of,
    until,
    want_job,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 12_000
SEED = 5


@pytest.fixture(scope="module")
def undisturbed_sha256(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("undisturbed"))
    job = ("--count", str(COUNT), "--shard-images", "256", "--seed", str(SEED), "--job-id", "job")
    un0_json("generate", *job, "--store", place)
    return str(un0_json("verify", "job", "--store", place)["pixel_sha256"])


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def serving(store: ObjectStore) -> tuple[str, ...]:
    return ("serve", "--store", store.config.uri)


def wait_for_end(serve: Running, store: ObjectStore, job_id: str = "job") -> str:
    serve.until(lambda: ended_state(store, job_id) is not None)
    until(lambda: JobLayout(job_id).active not in active(store), "the job to be put away")
    return str(ended_state(store, job_id))


def active(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("service/active/")}


def assert_whole(store: ObjectStore, sha256: str) -> None:
    report = un0_json("verify", "job", "--store", store.config.uri)
    assert report["ok"] is True
    assert report["pixel_sha256"] == sha256


def test_jobs_in_the_store_are_run_and_a_stop_leaves_nothing_behind(
    store: ObjectStore, undisturbed_sha256: str
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    submit_job(store, "second", 512)
    with running(*serving(store)) as serve:
        assert wait_for_end(serve, store) == "completed"
        assert wait_for_end(serve, store, "second") == "completed"
        assert serve.stdout.startswith("ready")
        assert serve.stdout.count("\n") == 1
        submit_job(store, "third", 512)  # after others have ended
        assert wait_for_end(serve, store, "third") == "completed"
        family = serve.descendants()
        serve.process.send_signal(signal.SIGTERM)
        assert serve.wait() == 0, serve.stderr
        left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert left == []
        assert "Traceback" not in serve.stderr
    assert read_beats(store) == {}
    assert_whole(store, undisturbed_sha256)
    last = newest_run(store, "job")
    assert last is not None
    assert (last.state, last.committed_images) == ("completed", COUNT)


def test_a_stop_in_the_middle_of_a_job_lets_the_next_server_go_on(
    store: ObjectStore, undisturbed_sha256: str
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    with running(*serving(store)) as serve:
        serve.until(lambda: committed(store, "job") >= 3)
        began_s = time.monotonic()
        serve.process.send_signal(signal.SIGTERM)
        assert serve.wait() == 0, serve.stderr
        assert time.monotonic() - began_s < 60  # 30 s on a machine with nothing else to do
    assert state(store, "job") == "queued"
    assert ended_state(store, "job") is None
    with running(*serving(store)) as serve:
        assert wait_for_end(serve, store) == "completed"
    assert_whole(store, undisturbed_sha256)


def test_a_killed_supervisor_is_started_again(store: ObjectStore, undisturbed_sha256: str) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    with running(*serving(store), "--json") as serve:
        serve.until(lambda: committed(store, "job") >= 3)
        supervisor_of(serve).kill()
        assert wait_for_end(serve, store) == "completed"
        lines = [json.loads(line) for line in serve.stderr.splitlines() if line.startswith("{")]
        assert any("the supervisor ended" in line["message"] for line in lines)
    assert_whole(store, undisturbed_sha256)


def test_after_a_power_cut_another_server_takes_the_job_over(
    store: ObjectStore, undisturbed_sha256: str
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    with running(*serving(store)) as serve:
        serve.until(lambda: committed(store, "job") >= 3)
        serve.kill_everything()
    before = holder(store, "job")
    with running(*serving(store)) as serve:
        assert wait_for_end(serve, store) == "completed"
    assert holder(store, "job") != before
    assert_whole(store, undisturbed_sha256)


def test_a_server_that_stood_still_does_no_harm_when_it_wakes(
    store: ObjectStore, undisturbed_sha256: str
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    with running(*serving(store)) as first:
        first.until(lambda: bool(first.replicas(AT_WORK)))
        frozen = first.descendants()
        with running(*serving(store)) as second:
            second.until(lambda: len(read_beats(store)) == 2)
            before = holder(store, "job")
            for process in frozen:  # the server with all of its Ray
                process.suspend()
            took_s = until(lambda: holder(store, "job") != before, "the takeover")
            print(f"taken over {took_s:.1f} s after the last sign of life")
            second.until(lambda: committed(store, "job") >= 10)
            for process in frozen:
                process.resume()
            assert wait_for_end(second, store) == "completed"
    assert_whole(store, undisturbed_sha256)


def test_pause_resume_and_cancel(store: ObjectStore) -> None:
    submit_job(store, "job", 10 * COUNT, seed=SEED)
    with running(*serving(store)) as serve:
        serve.until(lambda: committed(store, "job") >= 3)
        want_job(store, "job", "pause")
        serve.until(lambda: state(store, "job") == "paused")
        rests_at = committed(store, "job")
        assert rests_at >= 3
        partial = un0("verify", "job", "--store", store.config.uri, "--json")
        assert json.loads(partial.stdout)["images"] == 256 * rests_at
        time.sleep(3.0)
        assert committed(store, "job") == rests_at
        want_job(store, "job", "run")
        serve.until(lambda: committed(store, "job") > rests_at)
        want_job(store, "job", "cancel")
        assert wait_for_end(serve, store) == "cancelled"
        manifest = find_manifest(store, "job")
        assert manifest is not None
        assert manifest.images >= 256 * rests_at
        submit_job(store, "next", 512)
        assert wait_for_end(serve, store, "next") == "completed"


class Head:
    """A Ray cluster of one node on this machine, that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--port", str(self.port), "--node-ip-address", "127.0.0.1"),
                    *("--num-cpus", "2", "--object-store-memory", "100000000"),
                    *("--include-dashboard", "false", "--disable-usage-stats"),
                    *("--temp-dir", str(self._directory / "ray")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, "the head")

    def kill(self) -> None:
        """With all of its processes, as a power cut would."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        family = [*root.children(recursive=True), root]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10.0)
        self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as directory:  # sockets need it short
        head = Head(Path(directory))
        head.start()
        try:
            yield head
        finally:
            head.kill()


def test_a_ray_head_that_is_killed_and_started_again_is_connected_to_again(
    store: ObjectStore, undisturbed_sha256: str, head: Head
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    with running(*serving(store), "--address", head.address) as serve:
        serve.until(lambda: committed(store, "job") >= 3)
        head.kill()
        time.sleep(5.0)
        head.start()
        assert wait_for_end(serve, store) == "completed"
    assert_whole(store, undisturbed_sha256)


def test_on_a_shared_cluster_a_run_goes_on_through_a_takeover(
    store: ObjectStore, undisturbed_sha256: str, head: Head
) -> None:
    submit_job(store, "job", COUNT, seed=SEED)
    shared = (*serving(store), "--address", head.address)
    with running(*shared) as first:
        first.until(lambda: committed(store, "job") >= 3)
        before = holder(store, "job")
        with running(*shared) as second:
            second.until(lambda: len(read_beats(store)) == 2)
            first.kill_everything()
            second.until(lambda: holder(store, "job") != before or bool(ended_state(store, "job")))
            assert wait_for_end(second, store) == "completed"
    assert_whole(store, undisturbed_sha256)

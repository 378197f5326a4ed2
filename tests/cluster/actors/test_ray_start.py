"""A run gets its Ray wherever it is started from, or says why not and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

import jobs
from cluster.actors.connect import LOCAL, connected
from cluster.actors.options import RunOptions
from cluster.errors import UserError
from cluster.storage.commit import ended_state
from cluster.storage.finish import finalise
from cluster.storage.open import open_store
from tests.support import jobfactory
from tests.support.netns import private_ray, why_not
from tests.support.rayfleet import bundled_rev
from un0 import DEFAULT_MODEL

UN0 = (sys.executable, "-P", "-m", "jobs.cli")
JOB = ("generate", "--count", "64", "--job-id", "job", "--json")
BIG = 600 * 2**20  # more than Ray would ship of a working directory


def run(
    *command: str, cwd: Path | None = None, under: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """The command to its end, without what this machine says of Ray and its directories."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours.pop("TMPDIR", None)
    return subprocess.run(
        [*under, *command], cwd=cwd, env=ours | env, capture_output=True, text=True,
        timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def assert_completed(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["state"] == "completed"


@pytest.fixture
def no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray can be started here."""
    monkeypatch.setenv("RAY_TMPDIR", f"{tmp_path}/none")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_ray")
def test_a_ray_that_cannot_start_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RAY_TMPDIR cannot hold"):
        jobs.generate(jobs.JobSpec(count=64), str(tmp_path))
    assert not list(tmp_path.glob("jobs/*"))


@pytest.mark.usefixtures("no_ray")
def test_a_job_that_is_there_is_refused_before_ray_is_looked_for(tmp_path: Path) -> None:
    jobfactory.submit(open_store(str(tmp_path)), jobfactory.workload("job"))
    with pytest.raises(UserError, match="is already in"):
        jobs.generate(jobs.JobSpec(count=64, job_id="job"), str(tmp_path))


@pytest.mark.usefixtures("no_ray")
def test_a_failed_job_stays_failed_if_ray_cannot_start(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    job = jobfactory.workload(model=DEFAULT_MODEL, model_rev=bundled_rev())
    jobfactory.submit(store, job)
    finalise(store, job.job_id, "failed")
    with pytest.raises(UserError, match="RAY_TMPDIR"):
        jobs.resume(job.job_id, str(tmp_path))
    assert ended_state(store, job.job_id) == "failed"


@pytest.mark.ray
@pytest.mark.slow
def test_neither_a_long_tmpdir_nor_the_users_own_modules_nor_uv_run_are_in_the_way(
    tmp_path: Path,
) -> None:
    work, home, long = tmp_path / "work", tmp_path / "home", tmp_path / ("x" * 60)
    for directory in (work / "un0", home, long):
        directory.mkdir(parents=True)
    for name in ("cluster.py", "jobs.py", "un0/__init__.py"):
        (work / name).write_text("raise RuntimeError('this is not the installed package')\n")
    os.truncate(os.open(work / "big", os.O_CREAT | os.O_RDWR), BIG)
    # Ray looks for an ancestor that was called as `uv run`
    (work / "run").write_text("import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n")
    uv = tmp_path / "uv"
    uv.symlink_to(sys.executable)
    done = run(str(uv), "run", *UN0, *JOB, "--store", str(tmp_path / "store"), cwd=work,
               TMPDIR=str(long), HOME=str(home), RAY_RUNTIME_ENV_HOOK="no.such.hook")  # fmt: skip
    assert_completed(done)
    assert not (home / ".ray").exists(), "a token there would change how later runs connect"
    assert not list(long.iterdir())


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_of_a_user_without_a_name_or_home_does_not_need_tmp_ray() -> None:
    if reason := why_not():
        pytest.skip(reason)
    shared = Path(os.environ.get("TMPDIR", "/tmp"), f"un0-test-{os.getpid()}")
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    read = "+dac_read_search"  # the interpreter may be in a home that is closed to others
    user = ("setpriv", "--reuid=1000700000", "--regid=0", "--clear-groups",
            f"--inh-caps={read}", f"--ambient-caps={read}")  # fmt: skip
    try:
        with private_ray("chmod 700 /tmp/ray") as under:
            done = run(*user, *UN0, *JOB, "--store", str(shared / "store"), cwd=Path("/"),
                       under=under, HOME="/", NUMBA_CACHE_DIR=str(shared))  # fmt: skip
        assert_completed(done)
    finally:
        shutil.rmtree(shared, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_that_is_up_in_the_process_is_used_and_left_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        result = jobs.generate(jobs.JobSpec(count=64), str(tmp_path))
        assert result.state == "completed"
        assert ray.get(ray.put("still here")) == "still here"
        with pytest.raises(UserError, match="is connected to the Ray at"):
            jobs.generate(jobs.JobSpec(count=64), str(tmp_path), address="10.9.9.9:6379")
    finally:
        ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_of_ones_own_is_closed_to_others_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with connected(RunOptions()) as cluster_id:
        assert cluster_id == LOCAL
        assert os.environ["RAY_AUTH_MODE"] == "token"
        files = Path(ray.get_runtime_context().get_temp_dir())
        assert stat.S_IMODE(files.parent.stat().st_mode) == 0o700
    assert dict(os.environ) == before
    assert not files.parent.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {".cache"}  # of numba or Triton, not Ray's


CONNECT = """
import sys
from cluster.actors.connect import connected
from cluster.actors.options import RunOptions
from cluster.errors import UserError
for address in sys.argv[1:]:
    try:
        with connected(RunOptions(address=address)) as cluster_id:
            print("connected", address)
    except UserError as error:
        print("refused", address, str(error))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("demands", [False, True])
def test_with_a_token_at_hand_a_cluster_is_reached_whether_it_wants_one_or_not(
    tmp_path: Path, demands: bool
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    mode = "token" if demands else "disabled"
    head = (f"HOME={tmp_path} RAY_AUTH_MODE={mode} {sys.executable} -m ray.scripts.scripts start "
            "--head --port=6379 --num-cpus=1 --include-dashboard=false --disable-usage-stats "
            "--object-store-memory=100000000 >/dev/null 2>&1")  # fmt: skip
    with private_ray(head) as under:
        done = run(sys.executable, "-c", CONNECT, "auto", "127.0.0.1:6379", "ray://127.0.0.1:10001",
                   under=under, HOME=str(tmp_path))  # fmt: skip
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    assert words == [["connected", "auto"], ["connected", "127.0.0.1:6379"],
                     ["refused", "ray://127.0.0.1:10001"]], done.stdout + done.stderr  # fmt: skip

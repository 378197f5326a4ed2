"""``un0 doctor`` in this process: what is said for ok, warn and fail, and that nothing stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cluster.errors import UserError
from cluster.health import Check
from cluster.metering.source import Refused
from jobs import doctor_checks
from jobs.cli import doctor as cli_doctor
from jobs.cli.main import app
from jobs.doctor import Finding, Probe, Where, examine
from tests.support.nvml_stub import LOST, Gpu, NvmlStub, build_nvml_stub
from un0.machine import Memory

HERE = Where("./un0-data")
FIXED = Probe("fixed", lambda _: ("ok", "all is well", None))
WARNS = Probe("warns", lambda _: ("warn", "half", "do this"))
FAILS = Probe("fails", lambda _: ("fail", "none", "do that"))


def raises(_: Where) -> Finding:
    raise SystemExit("a\nb")


def refuses(_: Where) -> Finding:
    raise UserError("store 'x': what is wrong: what to do")


def hangs(_: Where) -> Finding:
    threading.Event().wait()
    raise AssertionError


def doctor(monkeypatch: pytest.MonkeyPatch, probes: list[Probe], *args: str) -> Result:
    monkeypatch.setattr(cli_doctor, "PROBES", probes)
    return CliRunner().invoke(app, ["doctor", *args])


@pytest.mark.parametrize(
    ("probes", "code", "last"),
    [
        ([FIXED], 0, "1 ok, 0 warn, 0 fail"),
        ([FIXED, WARNS], 0, "1 ok, 1 warn, 0 fail"),
        ([FAILS, FIXED, WARNS], 1, "1 ok, 1 warn, 1 fail"),
    ],
)
def test_only_a_fail_fails(
    monkeypatch: pytest.MonkeyPatch, probes: list[Probe], code: int, last: str
) -> None:
    done = doctor(monkeypatch, probes)
    assert done.exit_code == code
    assert done.stdout.splitlines()[-1] == last


def test_people_get_the_fix_below_each_warn_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor(monkeypatch, [FIXED, WARNS, FAILS]).stdout.splitlines() == [
        "ok    fixed  all is well",
        "warn  warns  half",
        "             fix: do this",
        "fail  fails  none",
        "             fix: do that",
        "1 ok, 1 warn, 1 fail",
    ]


def test_scripts_get_every_check_in_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    done = doctor(monkeypatch, [FIXED, FAILS], "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "checks": [
            {"name": "fixed", "status": "ok", "detail": "all is well", "fix": None},
            {"name": "fails", "status": "fail", "detail": "none", "fix": "do that"},
        ]
    }


def test_a_check_that_raises_is_a_finding_in_one_line() -> None:
    first, second = examine(HERE, [Probe("raises", raises), FIXED])
    assert (first.status, first.detail) == ("fail", "the check failed: SystemExit: a b")
    assert first.fix
    assert second.status == "ok"


def test_an_error_with_its_fix_is_shown_as_it_is() -> None:
    (check,) = examine(HERE, [Probe("refuses", refuses)])
    assert (check.status, check.detail) == ("fail", "store 'x': what is wrong: what to do")


@pytest.mark.parametrize("silent", ["warn", "fail"])
def test_a_check_that_hangs_is_left_behind(silent: Any) -> None:
    probe = Probe("hangs", hangs, silent, "free it", limit_s=0.2)
    assert examine(HERE, [probe, FIXED]) == [
        Check(name="hangs", status=silent, detail="did not answer within 0.2 s", fix="free it"),
        Check(name="fixed", status="ok", detail="all is well"),
    ]


def test_a_check_that_hangs_does_not_keep_the_process() -> None:
    code = (
        "import threading\nfrom jobs.cli import doctor as cli_doctor\n"
        "from jobs.cli.main import app\n"
        "from jobs.doctor import Probe\n"
        "cli_doctor.PROBES = [Probe('h', lambda _: threading.Event().wait(), limit_s=0.1)]\n"
        "app(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn  h  did not answer within 0.1 s" in done.stdout


def test_this_machine_gets_an_answer_from_every_check() -> None:
    checks = examine(HERE, doctor_checks.PROBES)
    names = {check.name.split()[0] for check in checks}
    assert names >= {"python", "cpus", "memory", "temp", "ray", "gpu", "meter", "store", "cache"}
    for check in checks:
        assert "the check failed" not in check.detail
        assert check.fix or check.status == "ok"


def test_the_checks_import_nothing_slow_to_begin_with() -> None:
    code = (
        "import sys, jobs; there = set(sys.modules)\n"
        "import jobs.cli.doctor\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - there}\n"
        "print(sorted(new & {'torch', 'ray', 'pyarrow', 'boto3', 'numba', 'pynvml'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- the machine ---


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "duckdb":
            raise metadata.PackageNotFoundError(name)
        return "2.1.0" if name == "ray" else real(name)

    assert doctor_checks.check_python(HERE)[0] == "ok"
    monkeypatch.setattr(metadata, "version", version)
    status, detail, fix = doctor_checks.check_python(HERE)
    assert status == "fail"
    assert "duckdb is not installed" in detail
    assert "ray is 2.1.0, and >=2.60 is needed" in detail
    assert "pip install --upgrade un0-cluster" in str(fix)


def test_a_temporary_directory_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    status, detail, fix = doctor_checks.check_temp(HERE)
    assert status == "fail"
    assert "no temporary file can be made" in detail
    assert "TMPDIR" in str(fix)


def test_fewer_cpus_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4096)
    status, detail, fix = doctor_checks.check_cpus(HERE)
    assert status == "warn"
    assert "of 4096" in detail
    assert "UN0_CPUS" in str(fix)


def test_too_little_memory_for_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    little = Memory(600 * 10**6, 600 * 10**6, "that its cgroup allows")
    monkeypatch.setattr(doctor_checks, "memory_here", lambda: little)
    (check,) = examine(HERE, [Probe("memory", doctor_checks.check_memory)])
    assert check.status == "fail"
    assert "600 MB" in check.detail or "0.6 GB" in check.detail


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor_checks.check_cache(HERE)[0] == "ok"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    status, detail, fix = doctor_checks.check_cache(HERE)
    assert status == "warn"
    assert str(tmp_path / "file") in detail
    assert "XDG_CACHE_HOME" in str(fix)


class TestGpus:
    """On made-up GPUs, in processes that load the stub in the driver's place."""

    @pytest.fixture
    def stub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvmlStub:
        stub = build_nvml_stub(tmp_path)
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        return stub

    def check(self, cuda: str | None, sysfs: Path = Path("/nowhere")) -> list[Any]:
        code = (
            "import json; from jobs import doctor_checks; from jobs.doctor import Where\n"
            "from pathlib import Path; from cluster.hardware.host_share import near_cpus\n"
            f"near_cpus.__defaults__ = (Path({str(sysfs)!r}),)\n"
            f"doctor_checks._torch_cuda = lambda: {cuda!r}\n"
            "print(json.dumps(doctor_checks.check_gpu(Where('.'))))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        found: list[Any] = json.loads(done.stdout)
        return found

    def test_torch_for_cpus_beside_a_gpu(self, stub: NvmlStub) -> None:
        stub.add(Gpu("GPU-a"))
        status, detail, fix = self.check(None)
        assert (status, detail[:2]) == ("warn", "1,")
        assert "install a CUDA build of torch" in fix

    def test_a_gpu_that_is_lost(self, stub: NvmlStub) -> None:
        stub.add(Gpu("GPU-a"), Gpu("GPU-b", status=LOST))
        assert self.check("12.8")[0] == "fail"

    def test_a_gpu_that_torch_can_use(self, stub: NvmlStub) -> None:
        stub.add(Gpu("GPU-a"))
        assert self.check("12.8")[0] == "ok"

    def test_cpus_near_a_gpu(self, stub: NvmlStub, tmp_path: Path) -> None:
        stub.add(Gpu("GPU-a"), Gpu("GPU-b"))
        assert "near" not in self.check("12.8")[1]  # this system does not tell
        mine = min(os.sched_getaffinity(0))
        board = tmp_path / "0000:3b:00.0"
        board.mkdir()
        (board / "local_cpulist").write_text(f"{mine}\n")
        assert "usable CPUs near each: 1, 1" in self.check("12.8", tmp_path)[1]


def test_a_driver_older_than_torch_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.metering.nvml.list_gpus", lambda: ["GPU-a"])
    monkeypatch.setattr("cluster.metering.nvml.cuda_version", lambda: "12.4")
    monkeypatch.setattr(doctor_checks, "_torch_cuda", lambda: "13.0")
    status, detail, fix = doctor_checks.check_gpu(HERE)
    assert (status, fix) == (
        "fail",
        "update the driver, or install a torch built for an older CUDA",
    )
    assert "driver for CUDA 12.4, torch for 13.0" in detail
    monkeypatch.setattr("cluster.metering.nvml.list_gpus", lambda: [Refused("broken", "reboot")])
    assert doctor_checks.check_gpu(HERE) == ("fail", "broken", "reboot")

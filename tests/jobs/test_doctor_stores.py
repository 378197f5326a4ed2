"""``un0 doctor`` on real stores: a directory, an S3 server, and what looks like one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.health import Check
from cluster.storage.dev_s3 import DevS3
from cluster.storage.open import open_store
from jobs import doctor_checks
from jobs.cli.main import app
from jobs.doctor import Probe
from tests.support.cli import un0

STORE = [Probe("store", doctor_checks.check_store, "fail", limit_s=60.0)]


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the store, with time for a busy machine."""
    monkeypatch.setattr("jobs.cli.doctor.PROBES", STORE)


def doctor(store: str, *args: str) -> tuple[int, dict[str, Check]]:
    done = CliRunner().invoke(app, ["doctor", "--store", store, *args, "--json"])
    checks = [Check(**check) for check in json.loads(done.stdout)["checks"]]
    return done.exit_code, {check.name: check for check in checks}


def failures(checks: dict[str, Check]) -> str:
    """What failed, with what to do about it, in one text."""
    return "\n".join(
        f"{c.name}: {c.detail}: {c.fix}" for c in checks.values() if c.status == "fail"
    )


def test_a_good_bucket(s3: DevS3) -> None:
    code, checks = doctor(f"{s3.uri}/doctor")
    assert code == 0
    assert {check.status for check in checks.values()} == {"ok"}
    assert s3.endpoint_url in checks["store address"].detail
    assert {"store write", "store conditional writes", "store clock"} <= checks.keys()
    assert list(open_store(f"{s3.uri}/doctor", probe=False).list("")) == []


def test_credentials_that_are_wrong(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, checks = doctor(s3.uri)
    assert code == 1
    assert "AWS_SECRET_ACCESS_KEY" in failures(checks)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there() -> None:
    code, checks = doctor("s3://no-such-bucket")
    assert code == 1
    assert "no such bucket" in failures(checks)


@pytest.mark.parametrize("store", ["ftp://host/x", "s3://key:secret@bucket", ""])
def test_an_address_that_is_none(store: str) -> None:
    code, checks = doctor(store)
    assert (code, checks["store address"].status) == (1, "fail")
    assert "the check failed" not in "".join(check.detail for check in checks.values())


def test_a_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    code, checks = doctor(str(tmp_path))
    assert code == 0, failures(checks)
    assert checks["store room"].status != "fail"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    code, checks = doctor(str(tmp_path / "a" / "b"))
    assert code == 0
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for store in (tmp_path / "file", tmp_path / "file" / "store"):
        code, checks = doctor(str(store))
        assert code == 1
        assert "a file is where a directory should be" in failures(checks)


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_hold_it_up() -> None:
    """The whole command, in a process of its own: it ends, and says which check had no answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = un0("doctor", "--store", "s3://bucket", "--endpoint-url", url, "--json")
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    store = [check for name, check in checks.items() if name.startswith("store")]
    assert any(check["status"] == "fail" and check["fix"] for check in store)
    assert checks["python"]["status"] == "ok"
    assert "Traceback" not in done.stderr

"""``un0 doctor`` on real stores: a directory, an S3 server, and what looks like one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.cli import un0
from typer.testing import CliRunner

from cluster.clock import utc_now
from cluster.storage.dev_s3 import DevS3
from cluster.storage.open import open_store
from jobs import doctor_store
from jobs.cli import app
from jobs.doctor import Check, Probe, Where

STORE = [
    Probe("store", doctor_store.check_store, "fail", limit_s=60.0),
    Probe("proxy", doctor_store.check_proxy, limit_s=60.0),
    Probe("clock", doctor_store.check_clock, limit_s=60.0),
]


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the store, with time for a busy machine."""
    monkeypatch.setattr("jobs.cli_doctor.PROBES", STORE)


def doctor(store: str, *args: str) -> tuple[int, dict[str, Check]]:
    done = CliRunner().invoke(app, ["doctor", "--store", store, *args, "--json"])
    checks = [Check(**check) for check in json.loads(done.stdout)["checks"]]
    return done.exit_code, {check.name: check for check in checks}


def test_a_good_bucket(s3: DevS3) -> None:
    code, checks = doctor(f"{s3.uri}/doctor")
    assert code == 0
    assert {check.status for check in checks.values()} == {"ok"}
    assert "with conditional writes" in checks["store"].detail
    assert s3.endpoint_url in checks["clock"].detail
    assert list(open_store(f"{s3.uri}/doctor", probe=False).list("")) == []


def test_credentials_that_are_wrong(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, checks = doctor(s3.uri)
    assert (code, checks["store"].status) == (1, "fail")
    assert "AWS_SECRET_ACCESS_KEY" in checks["store"].detail
    assert checks["clock"].status == "ok"  # a refusal has a date too


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there() -> None:
    code, checks = doctor("s3://no-such-bucket")
    assert (code, checks["store"].status) == (1, "fail")
    assert "no such bucket" in checks["store"].detail


@pytest.mark.parametrize("store", ["ftp://host/x", "s3://key:secret@bucket", ""])
def test_an_address_that_is_none(store: str) -> None:
    code, checks = doctor(store)
    assert (code, checks["store"].status) == (1, "fail")
    assert "the check failed" not in "".join(check.detail for check in checks.values())


def test_a_directory_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    code, checks = doctor(str(tmp_path))
    assert (code, checks["store"].status) == (0, "ok")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    code, checks = doctor(str(tmp_path / "a" / "b"))
    assert code == 0
    assert "not there yet" in checks["store"].detail
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for store in (tmp_path / "file", tmp_path / "file" / "store"):
        code, checks = doctor(str(store))
        assert (code, checks["store"].status) == (1, "fail")
        assert checks["store"].fix


@contextmanager
def clock_server(ahead: timedelta) -> Iterator[str]:
    """A server whose replies are dated so far ahead of this machine's clock."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", format_datetime(utc_now() + ahead))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("minutes", "status", "says"),
    [(0, "ok", "0 s"), (5, "warn", "300 s behind"), (-60, "fail", "3600 s ahead of")],
)
def test_a_clock_that_is_wrong(minutes: int, status: str, says: str) -> None:
    with clock_server(timedelta(minutes=minutes)) as url:
        found = doctor_store.check_clock(Where("s3://bucket", url))
    assert found[0] == status
    assert says.split(" ", 2)[-1] in found[1]
    assert bool(found[2]) == (status != "ok")


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_hold_it_up() -> None:
    """The whole command, in a process of its own: it ends, and says which check had no answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = un0("doctor", "--store", "s3://bucket", "--endpoint-url", url, "--json")
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["store"]["status"] == "fail"
    assert checks["store"]["fix"]
    assert checks["python"]["status"] == "ok"
    assert "Traceback" not in done.stderr

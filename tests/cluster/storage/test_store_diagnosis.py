"""What a look at a store finds, and that it is what opening the store would say."""

from __future__ import annotations

import errno
import os
import uuid
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from cluster.clock import utc_now
from cluster.storage import exclusive
from cluster.storage.dev_s3 import DevS3
from cluster.storage.diagnose import Check, check_store
from cluster.storage.open import open_store
from tests.support.juicefs import JuiceFSGateway
from tests.support.strict_s3 import StrictS3


def found(uri: str, **options: str) -> dict[str, Check]:
    checks = check_store(uri, **options)  # type: ignore[arg-type]
    assert all(check.fix for check in checks if check.status != "ok")
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert os.environ.get("AWS_SECRET_ACCESS_KEY", "no such") not in f"{check}"
    return {check.name: check for check in checks}


def address() -> str:
    return f"s3://un0/look-{uuid.uuid4().hex}"


def test_a_good_server_is_all_ok_and_nothing_is_left(s3: DevS3) -> None:
    place = address()
    checks = found(place)
    assert {check.status for check in checks.values()} == {"ok"}
    assert set(checks) == {
        "store address", "store proxy", "store write", "store conditional writes", "store read",
        "store list", "store missing objects", "store delete", "store checksums",
        "store encryption", "store clock",
    }  # fmt: skip
    assert s3.endpoint_url in checks["store address"].detail
    assert list(open_store(place, probe=False).list("")) == []


@pytest.mark.parametrize(
    ("quirk", "failing", "fix"),
    [
        ("noput", ["store write"], "s3:PutObject"),
        ("noget", ["store read"], "s3:GetObject"),
        ("nolist", ["store list", "store missing objects"], "s3:ListBucket"),
        ("nodelete", ["store delete"], "s3:DeleteObject"),
        ("inm400", ["store conditional writes"], "--single-writer"),
        ("skew", ["store write"], "NTP"),
        ("html", ["store write"], "--endpoint-url"),
    ],
)
def test_each_fault_fails_its_own_check(
    quirk: str, failing: list[str], fix: str, s3: DevS3
) -> None:
    with StrictS3(s3.endpoint_url, quirk) as proxy:
        checks = found(address(), endpoint_url=proxy.endpoint_url)
    assert [name for name, check in checks.items() if check.status == "fail"] == failing
    for name in failing:
        assert fix in checks[name].fix


def test_a_proxy_and_a_clock_that_is_off_are_warned_of(
    s3: DevS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(StrictS3):
        def change(self, _: bytes, reply: bytes) -> bytes:
            lines = reply.split(b"\r\n")
            date = format_datetime(utc_now() + timedelta(minutes=3)).encode()
            return b"\r\n".join(b"Date: " + date if x[:5] == b"Date:" else x for x in lines)

    with Late(s3.endpoint_url, "none") as proxy:
        clock = found(address(), endpoint_url=proxy.endpoint_url)["store clock"]
        assert clock.status == "warn"
        assert "behind the server's" in clock.detail
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("http_proxy", f"http://u:pass-word@{proxy.endpoint_url[7:]}")
        checks = found(address())
    assert checks["store proxy"].status == "warn"
    assert "pass-word" not in f"{checks}"
    assert checks["store write"].status == "ok"


@pytest.mark.slow
def test_a_server_without_conditions(juicefs: JuiceFSGateway) -> None:
    checks = found(f"{juicefs.uri}/{uuid.uuid4().hex}")
    assert checks["store conditional writes"].status == "fail"
    assert "--single-writer" in checks["store conditional writes"].fix


@pytest.mark.parametrize("uri", ["gs://bucket", "s3://b", ""])
def test_an_address_that_is_none(uri: str) -> None:
    assert list(found(uri)) == ["store address"]


def test_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = found(str(tmp_path / "new" / "store"))
    assert list(tmp_path.iterdir()) == []
    assert {c.status for name, c in checks.items() if name != "store room"} == {"ok"}
    assert "GiB free" in checks["store room"].detail

    def refuse(self: Path, _: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(exclusive, "file_system_of", lambda _: "fuse.any")
    failed = found(str(tmp_path / "store"))["store conditional writes"]
    assert failed.status == "fail"
    assert "ext4" in failed.fix

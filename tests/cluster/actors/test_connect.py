"""Which Ray a run goes to, by --address and RAY_ADDRESS."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.actors import connect, ray_check
from cluster.actors.connect import target
from cluster.actors.ray_check import check_ray
from cluster.errors import UserError


@pytest.mark.parametrize(
    ("address", "env", "expected"),
    [
        (None, None, None),
        (None, "", None),
        ("local", None, None),
        ("local", "10.0.0.1:6379", None),
        (None, "local", None),
        ("auto", None, "auto"),
        ("auto", "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "auto", "auto"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        ("[::1]:6379", None, "[::1]:6379"),
        ("head.ray.svc:6379", None, "head.ray.svc:6379"),
    ],
)
def test_the_option_comes_before_the_variable(
    address: str | None, env: str | None, expected: str | None
) -> None:
    assert target(address, {} if env is None else {"RAY_ADDRESS": env}) == expected


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("ray://head:10001", "Ray Client"),
        ("http://head:8265", "host:port"),
        ("head", "host:port"),
        ("head:", "host:port"),
    ],
)
@pytest.mark.parametrize("source", ["--address", "RAY_ADDRESS"])
def test_what_cannot_work_is_refused_in_one_line_that_says_where_it_comes_from(
    address: str, what: str, source: str
) -> None:
    given, env = (address, {}) if source == "--address" else (None, {"RAY_ADDRESS": address})
    with pytest.raises(UserError) as error:
        target(given, env)
    assert str(error.value).startswith(f"{source} {address!r}")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_the_doctor_hears_what_is_wrong_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", f"{tmp_path}/none")
    monkeypatch.setattr(ray_check, "check_processes", lambda _: None)
    files, threads = check_ray(None, 2)
    assert (files.status, threads.status) == ("fail", "ok")
    assert str(tmp_path) in files.detail
    assert files.fix.startswith("name a writable directory")
    (cluster,) = check_ray("ray://head:10001", 2)
    assert cluster.status == "fail"
    assert cluster.fix


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1:6379", "localhost:6379", True),
        ("127.0.0.1:6379", "127.0.0.1:6380", False),
        ("127.0.0.2:6379", "127.0.0.1:6379", False),
        ("no.such.host.invalid:6379", "127.0.0.1:6379", False),
    ],
)
def test_a_name_and_a_number_may_be_the_same_head(one: str, other: str, same: bool) -> None:
    assert connect._same_host_port(one, other) is same


def test_auto_is_the_cluster_that_ray_start_noted_not_just_any_ray_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(
        connect.services, "find_gcs_addresses", lambda: frozenset({"127.0.0.1:12345"})
    )
    with pytest.raises(UserError, match="`ray start` has noted none"):
        connect.cluster_address("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6379")
    assert connect.cluster_address("auto") == "127.0.0.1:6379"

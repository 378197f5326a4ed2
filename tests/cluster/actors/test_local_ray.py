"""Where a Ray of one's own puts its files, and what it leaves: nothing."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.actors import local_ray
from cluster.actors.local_ray import (
    LOCK,
    StartFailed,
    bases,
    check_processes,
    make_directory,
    own_token,
    temporary_directory,
)
from cluster.errors import UserError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path short enough for Ray's sockets, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_the_users_choice_comes_first_and_ray_tmpdir_alone() -> None:
    assert bases({"TMPDIR": "/scratch"})[:2] == [Path("/scratch"), Path("/tmp")]
    assert bases({})[0] == Path("/tmp")
    assert bases({"TMPDIR": "/scratch", "RAY_TMPDIR": "/fast"}) == [Path("/fast")]


def test_the_directory_is_this_users_alone(short: Path) -> None:
    directory = make_directory({"RAY_TMPDIR": str(short)})
    assert directory.parent == short
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_a_tmpdir_too_long_for_sockets_is_passed_over(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with temporary_directory({"TMPDIR": str(long)}) as directory:
        assert not directory.is_relative_to(long)
    assert list(long.iterdir()) == []
    with pytest.raises(UserError, match=r"RAY_TMPDIR .* too many for Ray's sockets; name a"):
        make_directory({"RAY_TMPDIR": str(long)})


def test_a_socket_of_rays_longest_name_fits_where_a_base_is_as_long_as_allowed(
    short: Path,
) -> None:
    base = short / ("x" * (local_ray.BASE_MAX - len(str(short)) - 1))
    base.mkdir()
    directory = make_directory({"RAY_TMPDIR": str(base)})
    path = directory / f"{'s' * (local_ray.SOCKET_CHARS)}"
    assert len(str(path)) == local_ray.SOCKET_PATH_MAX


@pytest.mark.parametrize("kind", ["missing", "file", "full"])
def test_a_place_that_cannot_hold_rays_files_is_named_with_the_reason(
    short: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = short / "base"
    if kind == "file":
        base.touch()
    if kind == "full":
        base.mkdir()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 2**30, 2**20))
    reason = {"missing": "No such file", "file": "Not a directory", "full": "1 MB are free"}[kind]
    with pytest.raises(UserError, match=reason) as error:
        make_directory({"RAY_TMPDIR": str(base)})
    assert "\n" not in str(error.value)
    assert kind != "full" or list(base.iterdir()) == []


def test_nothing_is_left_but_after_a_failure_of_rays(short: Path) -> None:
    env = {"RAY_TMPDIR": str(short)}
    with temporary_directory(env):
        pass
    for error in (KeyboardInterrupt(), UserError("too many replicas")):
        with pytest.raises(type(error)), temporary_directory(env):
            raise error
    assert list(short.iterdir()) == []
    with pytest.raises(StartFailed), temporary_directory(env) as kept:
        raise StartFailed("no")
    with temporary_directory(env):
        assert kept.is_dir()


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(
    short: Path,
) -> None:
    env = {"RAY_TMPDIR": str(short)}
    killed = make_directory(env)
    (killed / LOCK).touch()
    with temporary_directory(env) as used:
        assert not killed.exists()
        with temporary_directory(env):
            assert used.is_dir()


def test_a_run_has_a_token_of_its_own_unless_tokens_are_disabled() -> None:
    first, second = own_token({}), own_token({"RAY_AUTH_MODE": "token"})
    assert first["RAY_AUTH_MODE"] == "token"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert own_token({"RAY_AUTH_TOKEN": "chosen"})["RAY_AUTH_TOKEN"] == "chosen"
    assert own_token({"RAY_AUTH_MODE": "disabled"}) == {}


def test_too_few_threads_are_refused_before_ray_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(local_ray, "_cgroups", list)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(UserError, match=r"`ulimit -u` \(100\) leaves .*; raise it"):
        check_processes(2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**6, 10**6))
    check_processes(2)


def test_a_containers_limit_of_processes_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_ray, "_cgroups", lambda: [tmp_path])
    (tmp_path / "pids.max").write_text("100\n")
    (tmp_path / "pids.current").write_text("90\n")
    with pytest.raises(UserError, match=r"leaves 10 threads .* --pids-limit"):
        check_processes(2)
    (tmp_path / "pids.max").write_text("max\n")
    check_processes(2)

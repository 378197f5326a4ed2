"""Where caches go when there is no home, none that can be written to, or somebody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from un0.engine import tuning
from un0.paths import cache_folder, cache_here, keep_elsewhere


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No home and no entry of the user's; the temporary directory is returned."""

    def none(_: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home that not even root can write to; the temporary directory is returned."""
    (tmp_path / "home").write_text("a file")
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert cache_folder() == tmp_path / "me/.cache/un0"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/un0"
    assert (cache_here().writable, cache_here().trouble) == (True, "")


def test_a_user_without_a_home_has_a_private_folder(homeless: Path) -> None:
    folder = cache_folder()
    assert folder == homeless / f"un0-cache-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    tuning.remember("key", 32)
    assert tuning.recall("key") == 32
    assert "no home directory" in cache_here().trouble


def test_a_home_that_cannot_be_written_to_is_not_used(blocked: Path) -> None:
    found = cache_here()
    assert (found.folder.parent, found.writable) == (blocked, True)
    assert "home/.cache/un0 cannot be written to" in found.trouble


@pytest.mark.parametrize("kind", ["link", "open to all", "file"])
def test_what_others_could_have_put_there_is_refused(homeless: Path, kind: str) -> None:
    own = homeless / f"un0-cache-{os.geteuid()}"
    if kind == "link":
        (homeless / "theirs").mkdir()
        own.symlink_to(homeless / "theirs")
    elif kind == "file":
        own.write_text("")
    else:
        own.mkdir()
        own.chmod(0o777)
    found = cache_here()
    assert not found.writable
    assert str(own) in found.trouble
    tuning.remember("key", 32)  # is not kept, and nothing is raised
    assert tuning.recall("key") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_another_users_folder_is_refused(homeless: Path) -> None:
    own = homeless / f"un0-cache-{os.geteuid()}"
    own.mkdir(mode=0o700)
    os.chown(own, 12345, 12345)
    assert not cache_here().writable


def test_libraries_that_know_only_a_home_are_moved(
    blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    keep_elsewhere("TRITON_CACHE_DIR", ".triton/cache")
    moved = Path(os.environ["TRITON_CACHE_DIR"])
    assert moved.parent.parent == blocked
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    keep_elsewhere("TRITON_CACHE_DIR", ".triton/cache")
    assert os.environ["TRITON_CACHE_DIR"] == "mine"


def test_a_cache_that_is_only_read_may_be_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    monkeypatch.setattr("un0.paths._writable", lambda _: False)
    keep_elsewhere("HF_HOME", ".cache/huggingface", written=False)
    assert "HF_HOME" not in os.environ


@pytest.mark.slow
def test_compiled_code_is_kept_without_a_home_beside_a_read_only_source(tmp_path: Path) -> None:
    """And no folder named "~" is left in the working directory."""
    (tmp_path / "code").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "code/main.py").write_text(
        "import pathlib\n"
        "def none(*_): raise RuntimeError('no home')\n"
        "pathlib.Path.home = none\n"
        "from un0.jit import compiled\n"
        "@compiled\n"
        "def double(x): return 2 * x\n"
        "print(double(2), sum(double.stats.cache_hits.values()), double.stats.cache_path)\n"
    )
    (tmp_path / "code/__pycache__").write_text("a file where the cache folder would be")
    keep = {k: v for k, v in os.environ.items()
            if k not in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}  # fmt: skip
    env = {**keep, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path.cwd())}
    runs = [
        subprocess.run(
            [sys.executable, str(tmp_path / "code/main.py")],
            env=env, cwd=tmp_path / "tmp", capture_output=True, text=True, check=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [run.stdout.split()[:2] for run in runs] == [["4", "0"], ["4", "1"]]
    assert f"{tmp_path}/tmp/un0-cache-" in runs[0].stdout
    assert [run.stderr for run in runs] == ["", ""]
    assert not (tmp_path / "tmp/~").exists()


def test_that_compiled_code_cannot_be_kept_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "from un0.jit import compiled\n"
        "@compiled\n"
        "def double(x): return 2 * x\n"
        "@compiled\n"
        "def triple(x): return 3 * x\n"
        "print(double(2) + triple(2))\n"
    )
    for name in ("__pycache__", "home", "un0-cache-" + str(os.geteuid())):
        (tmp_path / name).write_text("a file where a folder would be")
    home = str(tmp_path / "home")
    env = {**os.environ, "HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": str(tmp_path),
           "PYTHONPATH": str(Path.cwd())}  # fmt: skip
    env.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "10\n"
    (line,) = done.stderr.splitlines()
    assert "compiled code cannot be kept" in line
    assert "set XDG_CACHE_HOME" in line

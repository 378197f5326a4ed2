"""A Ray of this machine's own: where its files go, whether it can start, and its start.

It leaves nothing behind: no token in the user's home, no session in /tmp.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.errors import UserError

OBJECT_STORE_BYTES = 128 * 2**20  # only control messages pass through it: images go to the store
FREE_BYTES = 64 * 2**20  # of which Ray's logs need the most
PREFIX, LOCK = "un0-", "in-use"  # the lock is held as long as the process lives
RAY_FILES = "r"  # in the run's directory: Ray opens its own to everybody
# What comes under the run's directory: Ray's, with 26 characters of time and a process id
SOCKET_CHARS = len(f"{RAY_FILES}/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store")
SOCKET_PATH_MAX = 107 if sys.platform == "linux" else 103
# 28: docs/how-to/connecting.md
BASE_MAX = SOCKET_PATH_MAX - SOCKET_CHARS - len(f"/{PREFIX}12345678/")
THREADS_BASE, THREADS_PER_CPU = 260, 30  # measured: of Ray and this process; of its workers
logger = logging.getLogger(__name__)


class StartFailed(UserError):
    """Ray did not start. What it wrote is kept."""


def bases(env: Mapping[str, str]) -> list[Path]:
    """Where a directory for Ray's files may be made, the best first: RAY_TMPDIR alone if set."""
    if named := env.get("RAY_TMPDIR"):
        return [Path(named)]
    names = [env.get("TMPDIR"), "/tmp", "/var/tmp", env.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    return list(dict.fromkeys(Path(name) for name in names if name))


def make_directory(env: Mapping[str, str]) -> Path:
    """A fresh directory of this user's alone that can hold Ray's sockets.

    Raises UserError, with what is wrong with each place, if there is none.
    """
    problems = []
    for base in bases(env):
        try:
            directory = _directory_in(base)
        except OSError as error:
            problems.append(f"{str(base)!r}: {error.strerror or error}")
        else:
            _sweep(base)
            return directory
    if "RAY_TMPDIR" in env:
        raise UserError(
            f"RAY_TMPDIR cannot hold Ray's files, {problems[0]}; name a writable directory on a "
            f"local disk, of at most {BASE_MAX} characters, or unset it"
        )
    raise UserError(
        f"no directory for Ray's files ({', '.join(problems)}); set RAY_TMPDIR to a writable "
        f"directory on a local disk, of at most {BASE_MAX} characters"
    )


def _directory_in(base: Path) -> Path:
    """A directory there; OSError if it could not hold Ray's files."""
    base = base.absolute()
    if len(os.fsencode(base)) > BASE_MAX:
        raise OSError(f"{len(os.fsencode(base))} characters are too many for Ray's sockets")
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        free = shutil.disk_usage(directory).free
        if free < FREE_BYTES:
            raise OSError(f"{free / 2**20:.0f} MB are free, Ray needs {FREE_BYTES / 2**20:.0f}")
        with socket.socket(socket.AF_UNIX) as probe:  # network and Windows disks cannot do it
            probe.bind(str(directory / "socket"))
        (directory / "socket").unlink()
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def check_processes(cpus: int) -> None:
    """UserError if fewer threads are allowed than Ray needs: its processes would abort."""
    needed = THREADS_BASE + THREADS_PER_CPU * cpus
    for left, what, fix in _threads_left():
        if left < needed:
            raise UserError(
                f"{what} leaves {max(0, left)} threads and Ray needs about {needed} for {cpus} "
                f"CPUs; {fix}, or ask for fewer CPUs"
            )


def _threads_left() -> Iterator[tuple[int, str, str]]:
    """(threads that may still be started, the limit's name, how to raise it) for each limit."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is exempt
        left = limit - _threads_of(os.getuid())
        yield left, f"`ulimit -u` ({limit})", "raise it with `ulimit -u`"
    for directory in _cgroups():
        try:
            allowed = (directory / "pids.max").read_text().strip()
            used = int((directory / "pids.current").read_text())
        except (OSError, ValueError):
            continue
        if allowed != "max":
            name = f"the container's limit of processes ({allowed}, {directory / 'pids.max'})"
            yield int(allowed) - used, name, "raise it (docker: --pids-limit)"


def _threads_of(uid: int) -> int:
    """Threads of all the user's processes that can be seen from here."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == uid:
                count += sum(1 for _ in (process / "task").iterdir())
        except OSError:  # it has ended
            continue
    return count


def _cgroups() -> list[Path]:
    """This process's cgroups that may limit processes, of version 2 or 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            root = Path("/sys/fs/cgroup", controllers)
            own = root / path.lstrip("/")
            found += [place for place in (own, *own.parents) if place.is_relative_to(root)]
    return found


def own_token(env: Mapping[str, str]) -> dict[str, str]:
    """Settings by which only this run's processes get into its Ray, unless tokens are disabled.

    They are in the environment of these processes alone: a token file in the user's home, as Ray
    would write, would make later runs send it to clusters that use none.
    """
    if env.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return {}
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": env.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
    }


@contextmanager
def temporary_directory(env: Mapping[str, str]) -> Iterator[Path]:
    """``make_directory``, removed at the end; kept, for the logs in it, after a failure of Ray.

    What a killed process left, the next one removes.
    """
    directory = make_directory(env)
    kept = False
    with (directory / LOCK).open("w") as lock:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        except Exception as error:
            kept = isinstance(error, StartFailed) or not isinstance(error, UserError)
            raise
        finally:
            if kept:
                (directory / LOCK).unlink(missing_ok=True)
                logger.warning("Ray's logs are kept in %s", directory)
            else:
                shutil.rmtree(directory, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove the directories there whose processes were killed."""
    for left in base.glob(f"{PREFIX}*/{LOCK}"):
        try:
            with left.open("r+") as lock:  # only this user's can be opened
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
        except OSError:
            continue

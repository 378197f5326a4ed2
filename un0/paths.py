"""Where this package keeps what it can make again."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = "un0"
FIX = "set XDG_CACHE_HOME to a directory that you can write to"


@dataclass(frozen=True)
class Cache:
    """The folder for caches. trouble: why it is not the usual one, or why nothing can be written
    there; empty if all is well."""

    folder: Path
    writable: bool
    trouble: str

    @property
    def costs(self) -> str:
        """What it costs that nothing can be written, and the fix; empty where it can."""
        if self.writable:
            return ""
        cost = "compiled code cannot be kept, every start compiles it again, for 15 s or more"
        return f"{cost}: {self.trouble}; {FIX}"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/un0`` or ``~/.cache/un0``; where they cannot be written to, or there is no
    home, a folder of this user's own under the temporary directory.

    Never raises. The folder exists if any of these could be made; else writing to it fails.
    """
    return cache_here().folder


def cache_here() -> Cache:
    """The same, with how it stands."""
    troubles: list[str] = []
    usual = list(_usual_folders())
    for folder in usual:
        if _writable(folder):
            return Cache(folder, True, "; ".join(troubles))
        troubles.append(f"{folder} cannot be written to")
    if not usual:
        troubles.append("there is no home directory")
    try:
        own = Path(tempfile.gettempdir()) / f"{NAME}-cache-{_user_id()}"
        _make_private(own)
    except OSError as error:
        troubles.append(f"nor can a temporary directory: {error}")
        nowhere = Path(os.devnull) / NAME  # writing there fails
        return Cache((usual or [nowhere])[0], False, "; ".join(troubles))
    return Cache(own, True, "; ".join(troubles))


def keep_elsewhere(variable: str, below_home: str, *, written: bool = True) -> None:
    """Where a library's own cache below the home cannot be used, set the variable that moves it
    to this package's. Call it before the library is imported.

    written: the library needs to write there; else what is there may be read-only.
    """
    if variable in os.environ:
        return
    folder = home()
    place = None if folder is None else folder / below_home
    if place is not None:
        readable = os.access(
            place, os.R_OK | os.X_OK
        )  # pathlib's tests raise where one may not look
        if (readable and not written) or _writable(place):
            return
    os.environ[variable] = str(cache_folder() / below_home.strip(".").replace("/", "-"))


def home() -> Path | None:
    """The user's home; None for a user without one, as in many containers."""
    try:
        found = Path.home()
    except RuntimeError:  # HOME is not set, and the user has no entry that would tell
        return None
    return found if found.is_absolute() else None


def _usual_folders() -> Iterator[Path]:
    base = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    if base.is_absolute():  # as its specification has it
        yield base / NAME
    if (folder := home()) is not None:
        yield folder / ".cache" / NAME


def _writable(folder: Path) -> bool:
    """Whether files can be made there; the folder is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not say: full, read-only
            return True
    except OSError:
        return False


def _make_private(folder: Path) -> None:
    """Make sure that the folder is a real one, this user's, and nobody else's: what is read from a
    cache is run. Raises OSError if it is not, such as when another user made it first."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user_id() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a directory of this user's own with mode 700")
    if not _writable(folder):
        raise PermissionError(f"{folder} cannot be written to")


def _user_id() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0

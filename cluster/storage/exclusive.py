"""Give a finished file its name in one atomic step, only if the name is free."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

_NO_LINKS = {
    errno.ENOSYS, errno.EXDEV, errno.EIO, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK
}  # fmt: skip
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


class NoHardLinks(OSError):
    """The file system has neither hard links nor another atomic way that can be relied on."""


def place(temp: Path, path: Path) -> None:
    """Make the file ``temp`` appear as ``path``; ``temp`` may remain, as a second link.

    Raises FileExistsError if there is something at ``path``, and then changes nothing. Of many
    callers at once exactly one succeeds. Where the file system has no hard links (vfat, exfat,
    CIFS without Unix extensions), the kernel's exclusive rename takes their place.
    """
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _rename_exclusively(temp, path):
            raise NoHardLinks(error.errno, os.strerror(error.errno), str(path)) from error


def _rename_exclusively(temp: Path, path: Path) -> bool:
    """False where it cannot be done, or is not sure to be atomic.

    File systems in user space get the flag passed on, and some ignore it: two machines could then
    both believe that they were first. So they are not trusted with it.
    """
    kind = file_system_of(path.parent)
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or kind is None or kind.startswith("fuse"):
        return False
    source, target = os.fsencode(temp), os.fsencode(path)
    if rename(_AT_FDCWD, source, _AT_FDCWD, target, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(path))


def file_system_of(directory: Path) -> str | None:
    """The kind of file system that holds the directory, such as ``ext4``; None if unknown."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        device = directory.stat().st_dev
    except OSError:
        return None
    return kind_of(f"{os.major(device)}:{os.minor(device)}", mounts)


def kind_of(device: str, mounts: Iterable[str]) -> str | None:
    """The kind of the mount of that device (``major:minor``) in lines of mountinfo."""
    for line in mounts:  # see proc_pid_mountinfo(5): the kind follows a lone "-"
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [device]:
            return rest.split()[0]
    return None

"""The checks of ``un0 doctor`` about Ray: a start on this machine, a cluster's address, tokens.

Nothing is started, and Ray itself is not imported.
"""

from __future__ import annotations

import os
import shutil
import socket
from importlib import metadata
from pathlib import Path

from jobs.doctor import Finding, Where

_KNOCK_S = 3.0
_SOCKET_PATH_BYTES = 107  # of a Unix socket's address on Linux
_SESSION_PATH = "/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # what Ray appends
_SHARED_MEMORY_BYTES = 128 * 2**20  # as much as a run's object store


def check_ray(_: Where) -> Finding:
    """Whether a Ray could be started here: its temporary directory and shared memory."""
    place = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    longest = os.fsencode(f"{place}{_SESSION_PATH.format(pid=os.getpid())}")
    another = "set RAY_TMPDIR to a short directory of your own, such as /var/tmp/you"
    detail = f"Ray {metadata.version('ray')}, sessions in {place}"
    if len(longest) > _SOCKET_PATH_BYTES:
        return "fail", f"{detail}: the path is too long for its sockets", another
    above = place if place.exists() else place.parent
    if not os.access(above, os.W_OK | os.X_OK):
        return "fail", f"{detail}: {above} is not writable by this user", another
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        if free < _SHARED_MEMORY_BYTES:
            fix = "give the container more shared memory: --shm-size=1g"
            return "warn", f"{detail}: /dev/shm has {free / 1e6:.0f} MB free", fix
    return "ok", detail, None


def check_address(where: Where) -> Finding:
    """Whether the Ray cluster that is asked for listens."""
    address = where.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return "ok", "none given: a run starts a Ray of its own", None
    if address.startswith("ray://"):
        fix = "give the head's own address, HOST:6379, from a machine of the cluster"
        return "fail", f"{address}: Ray's client protocol is not supported", fix
    if address == "auto":
        return "ok", "auto: the Ray that runs on this machine is looked for", None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return "fail", f"{address!r} is no HOST:PORT", "give the head's address, HOST:6379"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        fix = "check --address (or RAY_ADDRESS) and that the cluster runs: `ray status` on its head"
        return "fail", f"nobody answers at {address} ({error})", fix
    return "ok", f"{address} answers", None


def check_tokens(where: Where) -> Finding:
    """How Ray's token authentication is set. Never shows a token."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    sources = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    default = Path(os.environ.get("HOME") or "/") / ".ray" / "auth_token"
    if default.is_file():
        sources.append(str(default))
    detail = f"mode {mode or 'as Ray sets it'}; token: {', '.join(sources) or 'none'}"
    if mode == "token" and not sources:
        return "fail", detail, "set RAY_AUTH_TOKEN to the cluster's token, or unset RAY_AUTH_MODE"
    address = where.address or os.environ.get("RAY_ADDRESS")
    if address and sources and not mode:
        fix = "if the cluster uses tokens set RAY_AUTH_MODE=token, else RAY_AUTH_MODE=disabled"
        return "warn", detail, fix
    return "ok", detail, None

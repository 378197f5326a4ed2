"""The checks of ``un0 doctor`` about the store: rights, proxy, clock."""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from datetime import datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.clock import utc_now
from cluster.errors import ClusterError
from jobs.doctor import NO_DISK, Finding, Where, enough

_ANSWER_S = 4.0
_SKEW_WARN_S, _SKEW_FAIL_S = 60.0, 900.0  # S3 refuses signatures that are 15 minutes off


def check_store(where: Where) -> Finding:
    """The store's address, its rights and its conditional writes. A directory is not made."""
    from cluster.storage.open import open_store

    if (path := _directory(where)) is not None:
        return _check_directory(path)
    store = open_store(where.store, endpoint_url=where.endpoint_url)
    at = store.config.endpoint_url or "AWS"
    return "ok", f"{store.config.uri} at {at}: writable, with conditional writes", None


def check_proxy(where: Where) -> Finding:
    """Proxies that the environment puts between this machine and the store."""
    known = urllib.request.getproxies()
    proxies = {kind: url for kind, url in known.items() if kind in ("http", "https", "all")}
    shown = ", ".join(f"{kind}_proxy={_without_user(url)}" for kind, url in proxies.items())
    url = _endpoint(where) if proxies else None
    if url is None:
        return "ok", shown or "none", None
    address = urlsplit(url)
    host = address.hostname or ""
    if urllib.request.proxy_bypass(host):
        return "ok", f"{shown}; not used for {host}", None
    if not {address.scheme, "all"} & proxies.keys():
        return "ok", f"{shown}; none for {address.scheme}://{host}", None
    if _is_near(host):
        fix = f"{host} is near: set NO_PROXY={host}"
        return "warn", f"{shown}; used for the store at {host}", fix
    return "ok", f"{shown}; used for {host}", None


def check_clock(where: Where) -> Finding:
    """This machine's clock against the Date that the store's server sends."""
    url = _endpoint(where)
    if url is None:
        return "ok", "the store is a directory: nothing to compare with", None
    try:
        stated = _date_of(url)
    except (OSError, ValueError) as error:
        return "warn", f"{url} tells no time ({error})", "see the check of the store"
    off_s = (utc_now() - stated).total_seconds()
    detail = f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} {url}"
    fix = "set the clock, best by NTP: `timedatectl set-ntp true`"
    if abs(off_s) > _SKEW_FAIL_S:
        return "fail", detail, fix
    return ("warn", detail, fix) if abs(off_s) > _SKEW_WARN_S else ("ok", detail, None)


def _check_directory(path: Path) -> Finding:
    from cluster.storage.open import open_store

    above = path
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    another = "make the directory writable, or choose another --store"
    if above == path:
        open_store(str(path))
    elif not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        return "fail", f"{path} cannot be made: {above} is no writable directory", another
    free = shutil.disk_usage(above).free
    status, fix = enough(free, NO_DISK, "free some space, or choose another --store")
    when = "" if above == path else ", not there yet (the first run makes it)"
    return status, f"{path}{when}, {free / 1e9:.1f} GB free", fix


def _directory(where: Where) -> Path | None:
    """The store's directory, or None when it is in a bucket. Raises UserError."""
    from cluster.storage.object_store import StoreConfig
    from cluster.storage.open import normalise

    config = normalise(StoreConfig(where.store, endpoint_url=where.endpoint_url))
    address = urlsplit(config.uri)
    return Path(unquote(address.path)) if address.scheme == "file" else None


def _endpoint(where: Where) -> str | None:
    """The address of the server that holds the store; None when it is in a directory."""
    from cluster.storage.open import open_store

    try:
        if _directory(where) is not None:
            return None
        config = open_store(where.store, endpoint_url=where.endpoint_url, probe=False).config
    except ClusterError:
        return None  # the check of the store says so
    return config.endpoint_url or f"https://s3.{config.region or 'us-east-1'}.amazonaws.com"


def _date_of(url: str) -> datetime:
    """What time a server says it is. Raises OSError or ValueError."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as reply:
            stated = reply.headers["Date"]
    except urllib.error.HTTPError as error:  # a refusal has a date too
        stated = error.headers["Date"]
    if not stated:
        raise ValueError("no Date in its reply")
    return parsedate_to_datetime(stated)


def _is_near(host: str) -> bool:
    """Whether a proxy is an unlikely way to that host: this machine, or a private network."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return (
            host == "localhost"
            or host.endswith((".local", ".internal", ".svc"))
            or ("." not in host)
        )


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)

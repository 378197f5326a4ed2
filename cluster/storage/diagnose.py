"""Checks of a store, one by one: the same steps that ``open_store`` takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from cluster.errors import ClusterError, Retryable
from cluster.health import Check, Status
from cluster.storage.exclusive import file_system_of
from cluster.storage.local import LocalStore
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import make_store
from cluster.storage.probe import Probe
from cluster.storage.s3 import S3Store
from cluster.storage.s3_client import proxy_of
from cluster.storage.s3_errors import clock_words

CLOCK_LIMIT = timedelta(seconds=30)  # S3 itself refuses requests that are 15 minutes off
FREE_LIMIT_BYTES = 2**30
_RIGHTS = {"write": "PUT", "read": "GET", "list": "LIST", "delete": "DELETE"}


def check_store(
    uri: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
) -> list[Check]:
    """Check the store as ``open_store`` does, but go on after the first fault.

    Makes some requests, on an object of its own, and leaves nothing, not even a directory that was
    not there before. Raises nothing of this package.
    """
    config = StoreConfig(
        uri,
        endpoint_url,
        region,
        single_writer,
        sse,  # type: ignore[arg-type]  # checked by make_store
        sse_kms_key,
    )
    try:
        store = make_store(config)
    except ClusterError as error:
        return [_failed("store address", error)]
    where = store.config.uri
    if store.config.endpoint_url:
        where += f" at {store.config.endpoint_url}"
    checks = [_check("store address", "ok", where)]
    if isinstance(store, S3Store):
        return [*checks, *_proxy(store), *_tried(store)]
    place = store.directory
    made = [path for path in (place, *place.parents) if not path.exists()]
    checks += [*_tried(store), *_room(place)]
    if made:
        with suppress(OSError):  # it was never made, or someone else uses it by now
            for path in (*place.iterdir(), *made):
                path.rmdir()
    return checks


def _tried(store: LocalStore | S3Store) -> Iterator[Check]:
    """The probe's steps. If nothing can be written there is nothing to try the others on."""
    probe = Probe(store)
    steps = probe.steps()
    try:
        steps.pop("write")()
    except ClusterError as error:
        yield _failed("store reachable" if isinstance(error, Retryable) else "store write", error)
        return
    yield _check("store write", "ok", "an object was written")
    for name, step in steps.items():
        try:
            step()
        except ClusterError as error:
            yield _failed(f"store {name}", error)
        else:
            yield _check(f"store {name}", *_worked(name, store))
    if isinstance(store, S3Store):
        yield from _writes(store)
        yield from _clock(probe.clock_offset)


def _worked(name: str, store: LocalStore | S3Store) -> tuple[Status, str]:
    if name != "conditional writes":
        return "ok", f"{_RIGHTS.get(name, 'GET')} is permitted" if isinstance(store, S3Store) else (
            "works"
        )  # fmt: skip
    if store.config.single_writer:
        return "ok", "not tried: --single-writer does without"
    return "ok", "a second write of the same object is refused"


def _writes(store: S3Store) -> Iterator[Check]:
    sent = {"crc32": "CRC-32 of each object", "md5": "Content-MD5 of each object"}
    checksum = store.config.checksum
    yield _check("store checksums", "ok", sent[checksum] if checksum else "the server takes none")
    sse = store.config.sse
    asked = f"{sse}, as asked for" if sse else "none asked for; the bucket's default applies"
    yield _check("store encryption", "ok", asked)


def _proxy(store: S3Store) -> Iterator[Check]:
    proxy = proxy_of(store.endpoint_url)
    if proxy is None:
        yield _check("store proxy", "ok", "none in between")
    else:
        yield _check(
            "store proxy",
            "warn",
            f"requests go through the proxy {proxy}",
            "add the server's host to NO_PROXY if it is to be reached directly",
        )


def _clock(offset: timedelta | None) -> Iterator[Check]:
    if offset is None:
        yield _check("store clock", "warn", "the server does not say what time it has")
    elif abs(offset) > CLOCK_LIMIT:
        yield _check("store clock", "warn", f"this machine's clock is {clock_words(offset)}",
                    "set the clock (NTP): S3 refuses requests that are 15 minutes off")  # fmt: skip
    else:
        yield _check("store clock", "ok", "agrees with the server's within 30 s")


def _room(directory: Path) -> Iterator[Check]:
    with suppress(OSError):
        found = os.statvfs(directory)
        free_bytes = found.f_bavail * found.f_frsize
        detail = f"{free_bytes / 2**30:,.1f} GiB free on {file_system_of(directory) or 'the disk'}"
        if found.f_files and not found.f_favail:
            yield _check("store room", "fail", "no inodes are left", "delete small files")
        elif free_bytes < FREE_LIMIT_BYTES:
            yield _check("store room", "warn", detail, "free some space")
        else:
            yield _check("store room", "ok", detail)


def _failed(name: str, error: ClusterError) -> Check:
    return _check(name, "fail", str(error), error.fix or "see the detail")


def _check(name: str, status: Status, detail: str, fix: str | None = None) -> Check:
    return Check(name=name, status=status, detail=detail, fix=fix)

"""Opening a store by its address, and refusing one that could lose a shard."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.errors import UserError
from cluster.storage.layout import PROBES
from cluster.storage.local import LocalStore
from cluster.storage.object_store import ObjectStore, StoreConfig, check_key
from cluster.storage.s3 import ConditionsUnsupported, S3Store, check_endpoint

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_HOW = "write ./directory, file:///absolute/directory or s3://bucket/prefix"


def open_store(
    config_or_uri: StoreConfig | str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    single_writer: bool = False,
    probe: bool = True,
) -> ObjectStore:
    """The store at ``file:///dir``, a plain path or ``s3://bucket/prefix``.

    probe: try it now, with two writes and a delete, and raise UserError if it cannot be used:
        wrong address or credentials, not writable, or conditional writes ignored while
        single_writer is not set. Without it nothing is touched before the first call: for
        reading only, and for the other processes of a run whose store was probed.
    """
    if isinstance(config_or_uri, str):
        config_or_uri = StoreConfig(config_or_uri)
    config = normalise(
        StoreConfig(
            uri=config_or_uri.uri,
            endpoint_url=endpoint_url or config_or_uri.endpoint_url,
            region=region or config_or_uri.region,
            single_writer=single_writer or config_or_uri.single_writer,
        )
    )
    if config.uri.startswith("file:"):
        local = LocalStore(config)
        if probe:
            local.sweep()
            probe_conditional_writes(local)
        return local
    store = S3Store(config)
    if probe:
        plain = S3Store(replace(config, single_writer=False)) if config.single_writer else store
        if not probe_conditional_writes(plain) and not config.single_writer:
            raise UserError(
                f"{config.uri} at {store.config.endpoint_url or 'AWS'}: the server does not "
                "honour conditional writes (PUT with If-None-Match), so two replicas could both "
                "believe that they committed a shard. Use a server that honours them, or say "
                "single_writer (--single-writer): the coordinator then writes every commit itself"
            )
    return store


def probe_conditional_writes(store: ObjectStore) -> bool:
    """Whether ``put_if_absent`` refuses to write twice, tried on a key of its own.

    False: the server overwrites, or answers that it cannot. The store must not be in
    single_writer mode, which imitates the refusal.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    try:
        store.put_if_absent(key, b"first")
        honoured = not store.put_if_absent(key, b"second")
    except ConditionsUnsupported:
        return False
    store.delete(key)
    return honoured


def normalise(config: StoreConfig) -> StoreConfig:
    """The config with a full URI, checked; paths become absolute. No request is made."""
    uri = config.uri.strip()
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    if not uri:
        raise UserError(f"the store's address is empty: {_HOW}")
    if not scheme:
        return StoreConfig(Path(uri).expanduser().absolute().as_uri())
    if scheme[1].lower() == "file":
        return StoreConfig(_file_uri(uri))
    if scheme[1].lower() != "s3" or not uri[3:].startswith("//"):
        raise UserError(f"store {redact(uri)!r}: unknown kind of address: {_HOW}")
    endpoint = check_endpoint(config.endpoint_url.rstrip("/")) if config.endpoint_url else None
    return replace(config, uri=_s3_uri(uri), endpoint_url=endpoint)


def redact(uri: str) -> str:
    """The URI without user information and query, either of which may hold a credential."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:(?://)?).*@", r"\1***@", uri.split("?")[0])


def _file_uri(uri: str) -> str:
    address = urlsplit(uri)
    if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
        raise UserError(f"store {redact(uri)!r}: a file address needs three slashes and an "
                        "absolute path: file:///data/un0")  # fmt: skip
    if address.query or address.fragment:
        raise UserError(f"store {redact(uri)!r}: write '?' as %3F and '#' as %23")
    return Path(unquote(address.path)).as_uri()


def _s3_uri(uri: str) -> str:
    rest = uri[len("s3://") :]
    bucket, _, prefix = rest.partition("/")
    if "@" in rest or ":" in bucket:
        raise UserError(
            "an s3:// address must not hold credentials: write s3://bucket/prefix and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if "?" in rest or "#" in rest:
        raise UserError(f"store {redact(uri)!r}: no '?' or '#' in an s3:// address")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(f"store {uri!r}: {bucket!r} is not a bucket name: s3://bucket/prefix")
    prefix = prefix.strip("/")
    return f"s3://{bucket}/{check_key(prefix)}" if prefix else f"s3://{bucket}"

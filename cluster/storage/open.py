"""Open a store by its address; refuse one that could lose a shard."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote, urlsplit

from cluster.errors import UserError
from cluster.storage.local import LocalStore
from cluster.storage.object_store import Encryption, ObjectStore, StoreConfig, check_key
from cluster.storage.probe import Probe

if TYPE_CHECKING:
    from cluster.storage.s3 import S3Store

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_HOW = "write ./directory, file:///absolute/directory or s3://bucket/prefix"


def open_store(
    config_or_uri: StoreConfig | str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    probe: bool = True,
) -> ObjectStore:
    """The store at ``file:///dir``, a plain path or ``s3://bucket/prefix``.

    sse: server-side encryption of all that is written to S3: AES256, aws:kms or aws:kms:dsse;
        default: UN0_SSE. sse_kms_key: its key, where the bucket's own is not meant; default:
        UN0_SSE_KMS_KEY.
    probe: try it now, on an object of its own, and raise UserError if it cannot be used: wrong
        address or credentials, a right that is missing, or conditional writes ignored while
        single_writer is not set. The store's config then says what was found. Without it nothing
        is touched before the first call: for reading only, and for the other processes of a run
        whose store was probed.
    """
    if isinstance(config_or_uri, str):
        config_or_uri = StoreConfig(config_or_uri)
    store = make_store(
        replace(
            config_or_uri,
            endpoint_url=endpoint_url or config_or_uri.endpoint_url,
            region=region or config_or_uri.region,
            single_writer=single_writer or config_or_uri.single_writer,
            sse=sse or config_or_uri.sse,  # type: ignore[arg-type]  # checked by normalise
            sse_kms_key=sse_kms_key or config_or_uri.sse_kms_key,
        )
    )
    if not probe:
        return store
    if isinstance(store, LocalStore):
        store.sweep()
    Probe(store).run()
    return store.settled() if isinstance(store, LocalStore) else store


def make_store(config: StoreConfig) -> LocalStore | S3Store:
    """The config's store, with its address and options checked. No request is made."""
    config = normalise(config)
    if config.uri.startswith("file:"):
        return LocalStore(config)
    from cluster.storage.s3 import S3Store  # boto3 takes half a second to import

    return S3Store(config)


def normalise(config: StoreConfig) -> StoreConfig:
    """The config with a full URI, checked; paths become absolute. No request is made."""
    uri = config.uri.strip()
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    if not uri:
        raise UserError(f"the store's address is empty: {_HOW}")
    if not scheme or scheme[1].lower() == "file":
        if config.sse or config.sse_kms_key:
            raise UserError(f"store {redact(uri)!r}: --sse and --sse-kms-key are of s3:// stores: "
                            "leave them out")  # fmt: skip
        path = _file_uri(uri) if scheme else Path(uri).expanduser().absolute().as_uri()
        return StoreConfig(path, existing=config.existing)
    if scheme[1].lower() != "s3" or not uri[3:].startswith("//"):
        raise UserError(f"store {redact(uri)!r}: unknown kind of address: {_HOW}")
    from cluster.storage.s3_client import check_endpoint

    endpoint = check_endpoint(config.endpoint_url.rstrip("/")) if config.endpoint_url else None
    return replace(
        config,
        uri=_s3_uri(uri),
        endpoint_url=endpoint,
        **_encryption(config.sse, config.sse_kms_key),
    )


def redact(uri: str) -> str:
    """The URI without user information and query, either of which may hold a credential."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:(?://)?).*@", r"\1***@", uri.split("?")[0])


def _encryption(sse: str | None, key: str | None) -> dict[str, Any]:
    """The fields of the config, with the environment's defaults; UserError if they are no pair."""
    if sse is None and key is None:
        sse, key = os.environ.get("UN0_SSE"), os.environ.get("UN0_SSE_KMS_KEY")
    sse, key = sse or None, key or None
    known = get_args(Encryption)
    if sse is not None and sse not in known:
        raise UserError(f"--sse {sse!r} is not known; choose {', '.join(known)}")
    if key and sse not in ("aws:kms", "aws:kms:dsse"):
        raise UserError("--sse-kms-key names a key of KMS: give --sse aws:kms with it")
    return {"sse": sse, "sse_kms_key": key}


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

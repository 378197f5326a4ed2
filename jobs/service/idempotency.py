"""Which job a request with an idempotency key made, so that it can be repeated without harm.

The record is written before the job: whoever repeats the request, at the same time or after a
crash, makes the same job of it, and the store lets it be made once.
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from datetime import datetime
from typing import Literal

from cluster.errors import NotFound, UserError
from cluster.storage.commit import create_once, parse_record
from cluster.storage.layout import idempotency_key
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record
from jobs.service.api import KeyReused
from jobs.spec import JobSpec

MOST_CHARS = 255


class Request(Record):
    """A submission by key. body: the digest of its spec. at: when the job counts as submitted."""

    schema_version: Literal[1] = SCHEMA_VERSION
    body: str
    job_id: str
    owner: str
    at: datetime
    token: str


def check_key(key: str) -> str:
    """The key, if it is one; UserError otherwise."""
    if not 1 <= len(key) <= MOST_CHARS or not key.isprintable():
        raise UserError(
            f"idempotency key {key[:40]!r}: give 1 to {MOST_CHARS} printable characters, "
            "for example a UUID, the same for every try of one request"
        )
    return key


def find_request(store: ObjectStore, owner: str, key: str, spec: JobSpec) -> Request | None:
    """The request of this key if it was made before. Raises KeyReused if it was another one."""
    place = _place(owner, key)
    with suppress(NotFound):
        return _checked(parse_record(Request, place, store.get(place)), key, spec)
    return None


def keep_request(
    store: ObjectStore, owner: str, key: str, spec: JobSpec, job_id: str, at: datetime
) -> Request:
    """Bind the key to this job; the request that the key is bound to, which another may have made
    at the same time. Raises KeyReused if that was another one."""
    place = _place(owner, key)
    request = Request(body=_body(spec), job_id=job_id, owner=owner, at=at, token=uuid.uuid4().hex)
    stored = create_once(store, place, request.model_dump_json().encode())
    return _checked(parse_record(Request, place, stored), key, spec)


def _checked(request: Request, key: str, spec: JobSpec) -> Request:
    if request.body != _body(spec):
        raise KeyReused(
            f"idempotency key {key!r} belongs to another request, which made job "
            f"{request.job_id}; take a new key for this one"
        )
    return request


def _body(spec: JobSpec) -> str:
    """A digest of what is asked for. Defaults are left out, so that new fields change none."""
    return hashlib.sha256(spec.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def _place(owner: str, key: str) -> str:
    return idempotency_key(hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest())

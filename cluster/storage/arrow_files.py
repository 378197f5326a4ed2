"""A store as an Arrow file system, which Arrow scans without calling Python."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import boto3
import pyarrow.fs as pafs

from cluster.storage.object_store import StoreConfig


def arrow_file_system(config: StoreConfig) -> pafs.FileSystem:
    """The store's objects, by key. Makes no request yet.

    Arrow's own clients read: a file system implemented in Python would deadlock, because
    ``Scanner.to_reader`` starts its reads while it holds the GIL.
    """
    address = urlsplit(config.uri)
    if address.scheme == "file":
        return pafs.SubTreeFileSystem(unquote(address.path), pafs.LocalFileSystem())
    return pafs.SubTreeFileSystem(f"{address.netloc}{address.path}", _s3(config))


def _s3(config: StoreConfig) -> pafs.S3FileSystem:
    """With the credentials that boto3 finds in this process, as everywhere else."""
    session = boto3.Session()
    found = session.get_credentials()
    options: dict[str, object] = {"anonymous": True}
    if found is not None:
        now = found.get_frozen_credentials()
        options = {
            "access_key": now.access_key,
            "secret_key": now.secret_key,
            "session_token": now.token,
        }
    if config.endpoint_url:
        endpoint = urlsplit(config.endpoint_url)
        options |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    region = config.region or session.region_name or "us-east-1"
    return pafs.S3FileSystem(region=region, connect_timeout=10, request_timeout=60, **options)

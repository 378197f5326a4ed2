"""The connection to an S3 server: two boto3 clients, and what its errors need to be explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import get_environ_proxies

from cluster.errors import UserError
from cluster.storage.object_store import PUTS_IN_FLIGHT, StoreConfig
from cluster.storage.s3_body import send_bodies
from cluster.storage.s3_errors import Request, WebPage, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REQUEST_TRIES = 4
POOL_CONNECTIONS = 4 * PUTS_IN_FLIGHT  # each in as many parts at a time; more would be reopened


@dataclass(frozen=True)
class Connection:
    """retried: for ordinary requests. unretried: sends each request once."""

    session: boto3.Session
    retried: S3Client
    unretried: S3Client

    @property
    def endpoint_url(self) -> str:
        return str(self.retried.meta.endpoint_url)

    @property
    def is_amazon(self) -> bool:
        return _is_amazon(self.endpoint_url)

    @property
    def region(self) -> str:
        return str(self.retried.meta.region_name)

    def secrets(self) -> tuple[str, ...]:
        """The credentials in use, which no message may hold."""
        try:
            found = self.session.get_credentials()
            now = found.get_frozen_credentials() if found else None
        except BotoCoreError:  # they could not be renewed: none are in use
            return ()
        return tuple(filter(None, (now.access_key, now.secret_key, now.token))) if now else ()

    def proxy(self) -> str | None:
        """The proxy between here and the server, without its credentials."""
        return proxy_of(self.endpoint_url)


def connect(config: StoreConfig) -> Connection:
    """Clients for the config's server, which suit also servers that know neither bucket host
    names nor the newer checksums. No request is made. Raises UserError."""
    try:
        session = boto3.Session()
        retried = _client(session, config, "auto", REQUEST_TRIES)
        check_endpoint(retried.meta.endpoint_url)
        if _is_amazon(retried.meta.endpoint_url):
            return Connection(session, retried, _client(session, config, "auto", 1))
        return Connection(
            session,
            _client(session, config, "path", REQUEST_TRIES),
            _client(session, config, "path", 1),
        )
    except BotoCoreError as error:
        raise translate(error, Request("", f"opening {config.uri}")) from error
    except ValueError:  # an endpoint that is no URL; the message would quote it
        raise UserError(
            f"opening {config.uri}: the endpoint is not a URL: correct --endpoint-url or "
            "AWS_ENDPOINT_URL_S3"
        ) from None


def check_endpoint(url: str) -> str:
    """The endpoint URL if it is one and holds no credentials; UserError otherwise."""
    address = urlsplit(url)
    if "@" in url:
        raise UserError(
            "the endpoint URL must not hold credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"endpoint {url!r}: write http://host:port or https://host")
    return url


def proxy_of(endpoint_url: str) -> str | None:
    """The proxy that the environment puts before this server, as host:port; None without one."""
    scheme = urlsplit(endpoint_url).scheme
    proxies: Mapping[str, str] = get_environ_proxies(endpoint_url)
    found = proxies.get(scheme) or proxies.get("all")
    return found.rpartition("@")[2].rpartition("://")[2].rstrip("/") if found else None


def _client(
    session: boto3.Session, config: StoreConfig, addressing: Literal["auto", "path"], tries: int
) -> S3Client:
    client = session.client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region or session.region_name or "us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": addressing},
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=POOL_CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    client.meta.events.register("before-call.s3.HeadBucket", _refuse_to_look_for_the_region)
    client.meta.events.register("response-received.s3", _refuse_web_pages)
    send_bodies(client)
    return client


def _refuse_to_look_for_the_region(**_: Any) -> None:
    """A redirect without a region makes boto3 ask for it by HeadBucket. Where that is redirected
    too, it would ask for ever. AWS always names the region, so nothing is lost by not asking."""
    empty: Any = {"Error": {}, "ResponseMetadata": {"HTTPHeaders": {}}}
    raise ClientError(empty, "HeadBucket")


def _refuse_web_pages(response_dict: Any, **_: Any) -> None:
    """A success with a web page is a login page or a proxy: S3 answers a PUT with an empty body.

    Looks at the raw reply: boto3 turns a page that is not XML into a 500, which it would retry.
    """
    if response_dict is None:
        return
    headers = response_dict["headers"]
    kind = headers.get("Content-Type", "").lower()
    is_page = kind.startswith("text/html") and headers.get("Content-Length") != "0"
    if is_page and response_dict["status_code"] < 300:
        raise WebPage


def _is_amazon(endpoint_url: str) -> bool:
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

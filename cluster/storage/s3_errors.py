"""What an S3 failure means for the caller. No message ever holds a credential."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from cluster.clock import utc_now
from cluster.errors import ClusterError, Fatal, NotFound, Retryable, StoreGone, UserError

MESSAGE_CHARS = 300  # so much of a server's own words is shown

_REGION = "the bucket is in another region: set AWS_REGION to {region}"
_FULL = "the store is full: free some space or raise its quota"
_UNREACHABLE = "no answer: check --endpoint-url (or AWS_ENDPOINT_URL_S3), and that the server runs"
_WEB_PAGE = (
    "a web page came instead of S3's answer: a login page or a proxy is in between, or the "
    "address is no S3 server; log in to the network, or correct --endpoint-url"
)
_UNTRUSTED = (
    "the server's certificate is not trusted: correct --endpoint-url, or name its authority in "
    "AWS_CA_BUNDLE"
)
_NO_CREDENTIALS = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_GONE = "there is no such bucket: create it or correct its name"
_DENIED = "DENIED"
_SKEWED = "SKEWED"
_RIGHTS = {
    "PUT": "s3:PutObject on the bucket's objects (where a policy demands encryption, say "
    "--sse aws:kms or AES256)",
    "GET": "s3:GetObject on the bucket's objects",
    "HEAD": "s3:GetObject on the bucket's objects",
    "LIST": "s3:ListBucket on the bucket",
    "DELETE": "s3:DeleteObject on the bucket's objects",
}
_ALL_RIGHTS = "read, write, list and delete on the bucket"

_FIXES = {
    "InvalidBucketName": "the server refuses this bucket name: correct it",
    "InvalidAccessKeyId": "the server does not know the access key: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: renew them",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN or renew it",
    "RequestTimeTooSkewed": _SKEWED,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "IncorrectEndpoint": _REGION,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
}
_FIXES_BY_STATUS = {301: _REGION, 307: _REGION, 401: _DENIED, 403: _DENIED, 507: _FULL}
_MAY_PASS = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled"}
_PARAMETER = re.compile(
    r"(?i)\b((?:x-amz-)?(?:credential|signature|security-token|accesskeyid)|awsaccesskeyid|"
    r"secret\w*|session\w*token|password)(\s*[=:]\s*[\"']?)[^\s&,;<>\"']+"
)
# Access key ids of AWS; signatures in hexadecimal digits or base64.
_SECRET_WORD = re.compile(r"\bA[KS]IA[A-Z0-9]{12,}|\b[0-9a-fA-F]{32,}\b|(?<![\w/+])[\w/+]{27,}=")


class WebPage(Exception):
    """A success whose body is HTML."""


@dataclass(frozen=True)
class Request:
    """What was asked for. what: opens every message. secrets: stand in none. proxy: host:port."""

    verb: str
    what: str
    secrets: tuple[str, ...] = ()
    proxy: str | None = None


def http_status(error: aws.ClientError) -> int:
    """The reply's status; 0 where it had none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_unreachable(error: Exception) -> bool:
    """No connection was made, so the request had no effect."""
    return isinstance(
        error, aws.EndpointConnectionError | aws.ConnectTimeoutError | aws.ProxyConnectionError
    )


def is_denied(error: aws.ClientError) -> bool:
    """The credentials are good, but may not do this; of a HEAD only the status is known."""
    return error.response.get("Error", {}).get("Code") in ("AccessDenied", "403")


def refuses_condition(error: aws.ClientError) -> bool:
    """The server knows no If-None-Match on a PUT, and says so."""
    status = http_status(error)
    return status == 501 or (400 <= status < 500 and "if-none-match" in _message(error).lower())


def server_words(text: str, secrets: Iterable[str] = ()) -> str:
    """What a server said: one line, of bounded length, without credentials and signatures."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for secret in sorted(secrets, key=len, reverse=True):
        line = line.replace(secret, "***")
    line = _SECRET_WORD.sub("***", _PARAMETER.sub(r"\1\2***", line))
    return line if len(line) <= MESSAGE_CHARS else f"{line[:MESSAGE_CHARS]}…"


def clock_offset(date_header: str, now: datetime) -> timedelta | None:
    """This machine's clock minus the server's, by a reply's ``Date``; None if that is unreadable.

    Known to a second or two: the header has whole seconds and was some time on its way.
    """
    try:
        return now - parsedate_to_datetime(date_header)
    except (ValueError, TypeError):
        return None


def clock_words(offset: timedelta) -> str:
    """``1:20:05 behind the server's``."""
    size = timedelta(seconds=round(abs(offset.total_seconds())))
    return f"{size} {'behind' if offset < timedelta() else 'ahead of'} the server's"


def translate(error: Exception, request: Request) -> ClusterError:
    """The error of this package for one of boto3's."""
    what = request.what
    if isinstance(error, aws.ClientError):
        return _translate_reply(error, request)
    if isinstance(error, WebPage | ResponseParserError):
        said = _WEB_PAGE if isinstance(error, WebPage) else (
            "the answer is not S3's: check --endpoint-url (or AWS_ENDPOINT_URL_S3)"
        )  # fmt: skip
        return _meant(UserError, request, said + _by_proxy(request))
    if is_unreachable(error):
        return _meant(Retryable, request, _UNREACHABLE + _by_proxy(request))
    if isinstance(error, aws.SSLError):
        return _meant(UserError, request, _UNTRUSTED + _by_proxy(request))
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return _meant(UserError, request, _NO_CREDENTIALS)
    if isinstance(error, aws.CredentialRetrievalError | aws.ProfileNotFound | aws.SSOError):
        return UserError(f"{what}: credentials could not be had ({type(error).__name__}): log in "
                         "again or correct AWS_PROFILE")  # fmt: skip
    if isinstance(error, aws.ParamValidationError | aws.InvalidRegionError):
        return UserError(f"{what}: {' '.join(str(error).split())}: correct it")
    if isinstance(error, aws.HTTPClientError | aws.IncompleteReadError):
        return Retryable(
            f"{what}: the connection failed ({type(error).__name__}){_by_proxy(request)}"
        )
    return Fatal(f"{what}: {type(error).__name__}")


def _translate_reply(error: aws.ClientError, request: Request) -> ClusterError:
    what, status = request.what, http_status(error)
    code = error.response.get("Error", {}).get("Code") or "without a code"
    words = server_words(_message(error), request.secrets)
    said = f"{code}: {words}" if words else code
    if code.isdecimal() and request.verb != "HEAD":  # not an S3 error: its body could not be read
        said += _by_proxy(request)
        page = _headers(error).get("content-type", "").startswith("text/html")
        if page and status < 500 and (request.verb, status) != ("GET", 404):
            return _meant(UserError, request, _WEB_PAGE, f" ({said})")
    if code == "NoSuchBucket":
        return _meant(StoreGone, request, _GONE, f" ({said})")
    if fix := _FIXES.get(code) or _FIXES_BY_STATUS.get(status):
        return _meant(UserError, request, _in_words(fix, error, request), f" ({said})")
    if status == 404:
        return NotFound(f"{what}: there is no such object")
    tries = int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
    reply = f"{what}: the server answered {status} {said} (tried {tries} times)"
    if status in (409, 429) or code in _MAY_PASS or (status >= 500 and status != 501):
        return Retryable(reply)
    return Fatal(reply)


def _meant(kind: type[ClusterError], request: Request, words: str, more: str = "") -> ClusterError:
    """words: "what is wrong: what to do". more: what else is known."""
    return kind(f"{request.what}: {words}{more}", words.partition(": ")[2])


def _in_words(fix: str, error: aws.ClientError, request: Request) -> str:
    if fix is _REGION:
        return fix.format(region=_headers(error).get("x-amz-bucket-region", "the bucket's"))
    if fix is _DENIED:
        right = _RIGHTS.get(request.verb, _ALL_RIGHTS)
        return f"these credentials may not do this: grant {right}"
    if fix is _SKEWED:
        offset = clock_offset(_headers(error).get("date", ""), utc_now())
        known = offset is not None and abs(offset) > timedelta(minutes=1)
        by = f" ({clock_words(offset)})" if offset is not None and known else ""
        return f"this machine's clock is wrong{by}: set it (NTP)"
    return fix


def _by_proxy(request: Request) -> str:
    if request.proxy is None:
        return ""
    return (
        f"; the proxy {request.proxy} is in between (HTTP_PROXY, HTTPS_PROXY): if the server is to "
        "be reached directly, add its host to NO_PROXY"
    )


def _message(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message") or "")


def _headers(error: aws.ClientError) -> dict[str, Any]:
    return dict(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))

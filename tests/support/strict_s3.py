"""S3 servers with rules and quirks of their own: a real server behind a proxy that imposes one.

Each quirk is a function of a request's head (lower case) and its verb: the reply that a server of
that kind gives, or None where it would do as asked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

from cluster.clock import utc_now
from tests.support.lossy_proxy import LossyProxy

CHECKSUM = re.compile(rb"\r\n(x-amz-(?:sdk-)?checksum[a-z0-9-]*):")
CONDITION = b"\r\nif-none-match:"
Quirk = Callable[[str, bytes, "StrictS3"], bytes | None]


class StrictS3(LossyProxy):
    """The proxy. ``requests``: how many came, ``heads``: what they were."""

    def __init__(self, endpoint_url: str, quirk: str) -> None:
        super().__init__(endpoint_url, lambda _: False)
        self._quirk = QUIRKS[quirk]
        self._hides_absence = quirk in ("nolist", "nolist_key")
        self._lock = threading.Lock()
        self.heads: list[bytes] = []

    def answer(self, head: bytes) -> bytes | None:
        low = head.lower()
        with self._lock:
            self.heads.append(low)
        return self._quirk(verb_of(low), low, self)

    def change(self, head: bytes, reply: bytes) -> bytes:
        absent = reply.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"404"]
        if self._hides_absence and absent and verb_of(head.lower()) == "GET":
            return error(403, "AccessDenied", "Access Denied")
        return reply

    @property
    def requests(self) -> int:
        return len(self.heads)

    def seen(self, low: bytes) -> bool:
        """Whether this request's target was asked for before, in the same way."""
        line = low.split(b"\r\n", 1)[0]
        return sum(head.startswith(line) and CONDITION in head for head in self.heads) > 1


def verb_of(low: bytes) -> str:
    """GET, PUT, DELETE, ... of a head; LIST for a listing."""
    verb, target = low.split(b" ")[:2]
    return "LIST" if b"list-type=2" in target else verb.decode().upper()


def error(status: int, code: str, message: str, **headers: str) -> bytes:
    """An S3 error as HTTP."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    own = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines = [f"HTTP/1.1 {status} Refused", "Content-Type: application/xml",
             f"Content-Length: {len(body)}", "Connection: close", *own]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def web_page(status: int = 200) -> bytes:
    """What a captive portal says, whatever was asked."""
    body = b"<!DOCTYPE html><html><body>Please <br> log in</body></html>"
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def denied(right: str) -> bytes:
    return error(403, "AccessDenied", f"not authorized to perform: {right}")


def _checksum(_: str, low: bytes, __: StrictS3) -> bytes | None:
    """Backblaze, OVH and older Ceph know none of the newer checksums."""
    if found := CHECKSUM.search(low):
        return error(400, "InvalidArgument", f"Unsupported header '{found[1].decode()}' received "
                                             "for this API call.")  # fmt: skip
    return None


def _no_checksum_at_all(verb: str, low: bytes, proxy: StrictS3) -> bytes | None:
    if b"\r\ncontent-md5:" in low:
        return error(501, "NotImplemented", "Content-MD5 is not implemented")
    return _checksum(verb, low, proxy)


def _object_lock(verb: str, low: bytes, _: StrictS3) -> bytes | None:
    if verb == "PUT" and not CHECKSUM.search(low) and b"\r\ncontent-md5:" not in low:
        return error(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is "
                     "required for Put Object requests with Object Lock parameters")  # fmt: skip
    return None


def _sse(verb: str, low: bytes, _: StrictS3) -> bytes | None:
    """A bucket policy that demands encryption, also of what starts a multipart upload."""
    starts = (verb == "PUT" and b"uploadid=" not in low) or (verb == "POST" and b"?uploads" in low)
    if starts and b"\r\nx-amz-server-side-encryption:" not in low:
        return error(403, "AccessDenied", "not authorized to perform: s3:PutObject with an "
                     "explicit deny in a resource-based policy")  # fmt: skip
    return None


def _no_conditions(status: int, code: str, message: str) -> Quirk:
    return lambda _, low, __: error(status, code, message) if CONDITION in low else None


def _conflict_first(_: str, low: bytes, proxy: StrictS3) -> bytes | None:
    if CONDITION in low and not proxy.seen(low):
        return error(409, "ConditionalRequestConflict", "a conflicting operation is under way")
    return None


def _right(verb: str, right: str) -> Quirk:
    return lambda asked, _, __: denied(right) if asked == verb else None


def _redirect(region: str) -> Quirk:
    headers = {"Location": "http://127.0.0.1:9/"}
    if region:
        headers["x_amz_bucket_region"] = region
    return lambda *_: error(307, "TemporaryRedirect", "Please re-send this request", **headers)


def _skewed(*_: object) -> bytes:
    server = format_datetime(utc_now() + timedelta(hours=1, minutes=20))
    return error(403, "RequestTimeTooSkewed", "The difference between the request time and the "
                 "current time is too large.", Date=server)  # fmt: skip


def _expired(after: int) -> Quirk:
    return lambda _, __, proxy: (
        error(400, "ExpiredToken", "The provided token has expired.")
        if proxy.requests > after
        else None
    )


QUIRKS: dict[str, Quirk] = {
    "none": lambda *_: None,
    "checksum": _checksum,
    "nochecksum": _no_checksum_at_all,
    "objectlock": _object_lock,
    "sse": _sse,
    "inm400": _no_conditions(400, "InvalidArgument",
                             "Unsupported header 'if-none-match' received for this API call."),
    "inm501": _no_conditions(501, "NotImplemented",
                             "A header you provided implies functionality not implemented."),
    "inm409": _conflict_first,
    "nolist": _right("LIST", "s3:ListBucket"),
    "nolist_key": lambda *_: None,
    "noget": _right("GET", "s3:GetObject"),
    "noput": _right("PUT", "s3:PutObject"),
    "nodelete": _right("DELETE", "s3:DeleteObject"),
    "redirect301": lambda *_: error(301, "PermanentRedirect", "use the specified endpoint",
                                    x_amz_bucket_region="eu-central-1"),
    "redirect307": _redirect("eu-central-1"),
    "redirect307_nowhere": _redirect(""),
    "slow503": lambda _, __, proxy: None if proxy.requests % 3 else error(
        503, "SlowDown", "Please reduce your request rate."
    ),
    "expire": _expired(8),
    "skew": _skewed,
    "html": lambda *_: web_page(),
    "html403": lambda *_: web_page(403),
}  # fmt: skip

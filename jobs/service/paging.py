"""Page tokens: where a list goes on, in a form that callers need not understand. Pure."""

from __future__ import annotations

import base64
import binascii
import json

from cluster.errors import UserError
from jobs.defaults import JOB_ID
from jobs.service.views import MAX_PAGE_SIZE

_MOST_CHARS = 400  # of a token: a job id has at most 128


def token_after(job_id: str) -> str:
    """The token of the page whose jobs follow this one."""
    text = json.dumps({"after": job_id}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(page_token: str) -> str | None:
    """The job that the page follows; None of the first page. Raises UserError for another text."""
    if not page_token:
        return None
    after = None
    if len(page_token) <= _MOST_CHARS:
        try:
            data = base64.b64decode(page_token + "=" * (-len(page_token) % 4), b"-_", validate=True)
            found = json.loads(data)
            after = found["after"] if isinstance(found, dict) and len(found) == 1 else None
        except (ValueError, KeyError, binascii.Error, RecursionError):
            after = None
    if not isinstance(after, str) or not JOB_ID.fullmatch(after):
        shown = page_token if len(page_token) <= 40 else f"{page_token[:40]}…"
        raise UserError(
            f"page_token {shown!r} is none that this service gave: pass next_page_token of the "
            "page before as it is, or leave it out for the first page"
        )
    return after


def check_page_size(page_size: int) -> int:
    """The size, if a page can have it; UserError otherwise."""
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise UserError(f"page_size {page_size} is out of range: give 1 to {MAX_PAGE_SIZE}")
    return page_size

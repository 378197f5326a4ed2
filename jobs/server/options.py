"""What bounds the HTTP API. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpOptions:
    """Limits and intervals of one HTTP process.

    threads: calls of the store at once; waiting: calls that may wait for one of these before
        requests are refused (503).
    status_s: how old a status that is shown may be: so many watchers cost one read.
    token_s: how long a revoked token may go on.
    body_bytes, body_s: of a request's body, and until it has arrived. head_s, head_bytes: of its
        head. keep_alive_s: until an idle connection is closed.
    reads, writes: requests a minute of one token. failures: answers 401 a minute to one address,
        after which it is refused.
    watchers: streams of events at once; watch_s: how long one lasts before the client must come
        back, with its token. poll_s: between two looks at the job. settle_s: how long after its
        end the event that says so is waited for, which its server writes a moment later.
    audit_s: between two files of the audit log.
    """

    threads: int = 16
    waiting: int = 2000
    status_s: float = 0.5
    token_s: float = 2.0
    body_bytes: int = 2**20
    body_s: float = 10.0
    head_bytes: int = 16 * 2**10
    head_s: float = 10.0
    keep_alive_s: int = 15
    connections: int = 4000
    reads: int = 12_000
    writes: int = 1_200
    failures: int = 120
    watchers: int = 2000
    watch_s: float = 900.0
    poll_s: float = 0.5
    settle_s: float = 5.0
    audit_s: float = 2.0

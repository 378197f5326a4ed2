"""Where everything lives under a store's root. The only place that spells keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHARD_DIGITS = 8
IMAGES_FILE = "images.parquet"
JOBS = "jobs/"
PROBES = ".probe/"  # short-lived objects by which a store's abilities are tried

_COMMIT = re.compile(r"(?:^|/)commits/shard-(\d+)\.json$")
_ATTEMPT = re.compile(r"(?:^|/)attempts/(\d+)/")


@dataclass(frozen=True)
class JobLayout:
    """Keys of one job, relative to the store's root."""

    job_id: str

    @property
    def root(self) -> str:
        return f"{JOBS}{self.job_id}/"

    @property
    def spec(self) -> str:
        return f"{self.root}spec.json"

    def control(self, request: str) -> str:
        return f"{self.root}control/{request}.json"

    @property
    def attempts(self) -> str:
        return f"{self.root}attempts/"

    def attempt(self, shard: int, attempt_id: str) -> str:
        return f"{self.attempts}{shard:0{SHARD_DIGITS}d}/{attempt_id}/"

    def images(self, shard: int, attempt_id: str) -> str:
        return f"{self.attempt(shard, attempt_id)}{IMAGES_FILE}"

    @property
    def commits(self) -> str:
        return f"{self.root}commits/"

    def commit(self, shard: int) -> str:
        return f"{self.commits}shard-{shard:0{SHARD_DIGITS}d}.json"

    @property
    def manifest(self) -> str:
        return f"{self.root}manifest.json"

    def marker(self, state: str) -> str:
        """``_SUCCESS``, ``_CANCELLED`` or ``_FAILED``."""
        return f"{self.root}_{ {'completed': 'SUCCESS'}.get(state, state.upper()) }"


def shard_of_commit(key: str) -> int | None:
    """The shard index of a commit record's key, or None for any other key."""
    match = _COMMIT.search(key)
    return int(match.group(1)) if match else None


def shard_of_attempt(key: str) -> int | None:
    """The shard index of an object that an attempt wrote, or None for any other key."""
    match = _ATTEMPT.search(key)
    return int(match.group(1)) if match else None


def holds_images(key: str) -> bool:
    """Whether an object that a commit vouches for is a file of images."""
    return key.endswith(f"/{IMAGES_FILE}")

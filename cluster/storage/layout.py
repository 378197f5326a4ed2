"""Keys of all objects in a store, relative to its root. No other module composes keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple
from urllib.parse import quote, unquote

SHARD_DIGITS = 8
IMAGES_FILE = "images.parquet"
JOBS = "jobs/"
ENERGY = "energy/"
FLEET = "fleet/"
PROFILES = f"{FLEET}profiles/"
ARRIVALS = f"{FLEET}arrivals/"
ACTIVE = "service/active/"  # an empty object a job that the service has and that has not ended
SERVERS = "service/servers/"
TOKENS = "service/tokens/"
TOKEN_KEY = "service/token-key"  # with which secrets are hashed; made once
IDEMPOTENCY = "service/idempotency/"
USAGE = "service/usage/"
LIMITS = "service/limits.json"  # what owners may ask for in a day
PROBES = ".probe/"  # short-lived objects by which a store's abilities are tried

_COMMIT = re.compile(r"(?:^|/)commits/shard-(\d+)\.json$")
_ATTEMPT = re.compile(r"(?:^|/)attempts/(\d+)/")
_CHECKPOINT = re.compile(r"(?:^|/)checkpoints/(\d+)-(\d+)-([0-9a-f-]+)\.commits$")
_ENERGY = re.compile(
    r"energy/date=(\d{4}-\d\d-\d\d)/host=([^/]+)/([0-9a-z]+)-(\d+)-(\d+)\.parquet$"
)
_USAGE = re.compile(r"service/usage/date=(\d{4}-\d\d-\d\d)/")
_COMPACTED = re.compile(r"energy/date=[^/]+/compacted/(\d+)(\.json|-[0-9a-z]+\.parquet)$")


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

    @property
    def epochs(self) -> str:
        return f"{self.root}epochs/"

    def epoch(self, number: int) -> str:
        """The claim of the job's run of this number."""
        return f"{self.epochs}{number:06d}.txt"

    @property
    def intents(self) -> str:
        return f"{self.root}intents/"

    def intent(self, number: int) -> str:
        """What the user wants of the job since the change of this number."""
        return f"{self.intents}{number:06d}.json"

    @property
    def events(self) -> str:
        return f"{self.root}events/"

    def event(self, number: int) -> str:
        """An entry of the job's history, from 1."""
        return f"{self.events}{number:08d}.json"

    @property
    def runs(self) -> str:
        return f"{self.root}runs/"

    def run(self, epoch: int) -> str:
        """How the service's run of this epoch stands, as its server last wrote it."""
        return f"{self.runs}{epoch:06d}.json"

    @property
    def quote(self) -> str:
        """What the job was expected to take when it was submitted."""
        return f"{self.root}quote.json"

    @property
    def inputs(self) -> str:
        return f"{self.root}inputs/"

    def input_part(self, digest: str, number: int) -> str:
        """Rows that the job's images are of. It is Parquet, but not called so, as a checkpoint."""
        return f"{self.inputs}{digest}/{number:08d}.rows"

    def inputs_begun(self, digest: str) -> str:
        """Says since when the parts beside it are written."""
        return f"{self.inputs}{digest}/begun.json"

    @property
    def input_errors(self) -> str:
        """The rows of the job's source that it is without, and why."""
        return f"{self.root}errors/inputs.jsonl"

    @property
    def active(self) -> str:
        return f"{ACTIVE}{self.job_id}"

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
    def checkpoints(self) -> str:
        return f"{self.root}checkpoints/"

    def checkpoint(self, first: int, stop: int, seal: str) -> str:
        """A checkpoint of the commits of shards first to stop - 1; ``seal`` tells of its contents.

        It is Parquet, but not called so: a glob over a job's Parquet files finds its images only.
        """
        return f"{self.checkpoints}{first:0{SHARD_DIGITS}d}-{stop:0{SHARD_DIGITS}d}-{seal}.commits"

    @property
    def decisions(self) -> str:
        return f"{self.root}decisions/"

    def decisions_of(self, run_id: str, number: int) -> str:
        """One file of what a run of the scheduler decided about the job."""
        return f"{self.decisions}{quote(run_id, safe='')}-{number:06d}.jsonl"

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


def parse_checkpoint(key: str) -> tuple[int, int, str] | None:
    """(first shard, stop, seal) of a checkpoint's key, or None for any other key."""
    match = _CHECKPOINT.search(key)
    return match and (int(match.group(1)), int(match.group(2)), match.group(3))


def holds_images(key: str) -> bool:
    """Whether an object named in a commit is a file of images."""
    return key.endswith(f"/{IMAGES_FILE}")


def profile_key(hardware: str, model: str) -> str:
    """The profile of a hardware class with a model."""
    return f"{PROFILES}{quote(hardware, safe='')}/{quote(model, safe='')}.json"


def server_key(server_id: str) -> str:
    """The sign of life of a server."""
    return f"{SERVERS}{quote(server_id, safe='')}.json"


def token_key(token_id: str) -> str:
    """The record of a token of the HTTP API."""
    return f"{TOKENS}{token_id}.json"


def token_use_key(token_id: str) -> str:
    """The day on which a token was last used."""
    return f"service/token-use/{token_id}.txt"


def audit_key(day: date, writer: str, number: int) -> str:
    """A file of the audit log: a JSON object a line."""
    return f"service/audit/date={day.isoformat()}/{writer}-{number:06d}.jsonl"


def idempotency_key(digest: str) -> str:
    """The request that an idempotency key belongs to, by a digest of owner and key."""
    return f"{IDEMPOTENCY}{digest}.json"


def usage_of(day: date, owner: str) -> str:
    """The prefix of what an owner has asked for on one UTC day, an object a job."""
    return f"{USAGE}date={day.isoformat()}/{quote(owner, safe='')}/"


def parse_usage_day(key: str) -> date | None:
    """The UTC day of an object below ``usage_of``, or None for any other key."""
    match = _USAGE.match(key)
    return match and parse_day(match.group(1))


def arrivals_key(cluster_id: str) -> str:
    """The forecast of a Ray cluster's work."""
    return f"{ARRIVALS}{quote(cluster_id, safe='')}.json"


class EnergyKey(NamedTuple):
    """A file of the energy log.

    writer: unique to one writer's life. Its segments follow each other; of one segment a later
    version holds all of an earlier one and replaces it.
    """

    day: date
    host: str
    writer: str
    segment: int
    version: int

    @property
    def key(self) -> str:
        name = f"{self.writer}-{self.segment:06d}-{self.version:06d}.parquet"
        return f"{energy_of_host(self.day, self.host)}{name}"


def energy_of_hosts(day: date) -> str:
    """The prefix of what hosts wrote of one UTC day."""
    return f"{ENERGY}date={day.isoformat()}/host="


def energy_of_host(day: date, host: str) -> str:
    """The prefix of one host's energy log of one UTC day."""
    return f"{energy_of_hosts(day)}{quote(host, safe='')}/"


def compactions_of(day: date) -> str:
    """The prefix of the compacted files of one UTC day, and of their records."""
    return f"{ENERGY}date={day.isoformat()}/compacted/"


def compaction_record(day: date, number: int) -> str:
    """The record whose existence makes a compacted file valid."""
    return f"{compactions_of(day)}{number:06d}.json"


def compacted_file(day: date, number: int, token: str) -> str:
    """A compacted file, valid once the day's record ``number`` names it."""
    return f"{compactions_of(day)}{number:06d}-{token}.parquet"


def parse_compaction(key: str) -> tuple[int, bool] | None:
    """(its number, whether it is the record) of what is in ``compactions_of``; None for others."""
    match = _COMPACTED.fullmatch(key)
    return match and (int(match.group(1)), match.group(2) == ".json")


def parse_energy_key(key: str) -> EnergyKey | None:
    """What the key of an energy file says, or None for any other key."""
    match = _ENERGY.fullmatch(key)
    if match is None:
        return None
    text, host, writer, segment, version = match.groups()
    day = parse_day(text)
    if day is None:
        return None
    return EnergyKey(day, unquote(host), writer, int(segment), int(version))


def parse_day(text: str) -> date | None:
    """The day written ``YYYY-MM-DD``, or None if it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None

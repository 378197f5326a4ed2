"""Tokens of the HTTP API: ``un0_<id>_<secret><checksum>``. Their records are in the store.

The store has no secret, only its HMAC: who can read the store cannot use the API as another. Who
can write to it can make tokens, and could change the jobs themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from pydantic import AwareDatetime

from cluster.errors import NotFound, UserError
from cluster.storage.commit import create_once, parse_record
from cluster.storage.layout import TOKEN_KEY, TOKENS, parse_day, token_key, token_use_key
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record

Scope = Literal["jobs:read", "jobs:write", "results:read", "fleet:read", "fleet:admin", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MOST_OWNER = 256  # characters

_ID_LETTERS = string.digits + string.ascii_lowercase
_LETTERS = _ID_LETTERS + string.ascii_uppercase
_ID, _SECRET, _CHECK = 12, 43, 6  # characters; 43 of 62 letters are 256 bits
_TOKEN = re.compile(rf"un0_([0-9a-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECK}}})")
TOKEN_ID = re.compile(rf"[0-9a-z]{{{_ID}}}")
_NOBODYS = hashlib.sha256(b"no token has this").hexdigest()


class BadToken(Exception):
    """The token gives no access. The message says why, and holds nothing of the token."""


class TokenRecord(Record):
    """A token, without its secret. mac: HMAC-SHA256 of the secret, in hexadecimal."""

    schema_version: Literal[1] = SCHEMA_VERSION
    token_id: str
    owner: str
    scopes: tuple[Scope, ...]
    mac: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Principal:
    """Who asks. owner: None: anybody's jobs, and the owner that a spec names (no tokens in use).
    token_id: None likewise."""

    token_id: str | None
    owner: str | None
    scopes: frozenset[Scope]

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def sees(self, owner: str) -> bool:
        """Whether jobs of this owner are shown to it."""
        return self.owner in (None, owner) or "admin" in self.scopes


class Tokens:
    """The tokens of a store. Every method but ``judge`` asks the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        made = secrets.token_bytes(32).hex().encode()
        self._key = bytes.fromhex(create_once(store, TOKEN_KEY, made).decode())

    def create(
        self,
        owner: str,
        scopes: Collection[str],
        now: datetime,
        *,
        by: str,
        expires_at: datetime | None = None,
    ) -> tuple[str, TokenRecord]:
        """(the token, to be shown once; its record). Raises UserError for what cannot be."""
        _check(owner, scopes, now, expires_at)
        token_id, secret = _letters(_ID, _ID_LETTERS), _letters(_SECRET, _LETTERS)
        record = TokenRecord(
            token_id=token_id,
            owner=owner,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            mac=self._mac(token_id, secret),
            created_at=now,
            created_by=by,
            expires_at=expires_at,
        )
        self._store.put(token_key(token_id), record.model_dump_json().encode())
        text = f"un0_{token_id}_{secret}"
        return text + _checksum(text), record

    def read(self, token_id: str) -> TokenRecord | None:
        """The token's record; None if there is none."""
        key = token_key(token_id)
        try:
            return parse_record(TokenRecord, key, self._store.get(key))
        except NotFound:
            return None

    def all(self) -> list[TokenRecord]:
        """Every token, the newest last."""
        found = []
        for info in self._store.list(TOKENS):
            with suppress(NotFound):
                found.append(parse_record(TokenRecord, info.key, self._store.get(info.key)))
        return sorted(found, key=lambda record: (record.created_at, record.token_id))

    def revoke(self, token_id: str, now: datetime) -> TokenRecord:
        """End the token for good. Raises UserError if there is none of this id."""
        record = self.read(token_id) if TOKEN_ID.fullmatch(token_id) else None
        if record is None:
            raise UserError(f"no token {token_id!r}; `un0 token list` shows those there are")
        if record.revoked_at is None:
            record = record.model_copy(update={"revoked_at": now})
            self._store.put(token_key(token_id), record.model_dump_json().encode())
        return record

    def judge(self, text: str, record: TokenRecord | None, now: datetime) -> Principal:
        """Whom the token stands for, by its record. Raises BadToken.

        Compares a hash of the same length in constant time whatever the record is, or none.
        """
        token_id, secret = _parts(text)
        mac = self._mac(token_id, secret)
        same = hmac.compare_digest(mac, _NOBODYS if record is None else record.mac)
        if record is None or not same or record.token_id != token_id:
            raise BadToken("the token is not known")
        if record.revoked_at is not None:
            raise BadToken("the token is revoked")
        if record.expires_at is not None and record.expires_at <= now:
            raise BadToken("the token has expired")
        return Principal(token_id, record.owner, frozenset(record.scopes))

    def note_use(self, token_id: str, day: date) -> None:
        """Write down that the token was used on this day."""
        self._store.put(token_use_key(token_id), day.isoformat().encode())

    def last_use(self, token_id: str) -> date | None:
        """The day on which the token was last used; None if never."""
        try:
            return parse_day(self._store.get(token_use_key(token_id)).decode())
        except NotFound:
            return None

    def _mac(self, token_id: str, secret: str) -> str:
        return hmac.new(self._key, f"{token_id}:{secret}".encode(), hashlib.sha256).hexdigest()


def id_of(text: str) -> str:
    """The id in a token. Raises BadToken if it is none, by its checksum too: then no store need be
    asked."""
    return _parts(text)[0]


def _parts(text: str) -> tuple[str, str]:
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise BadToken("that is not a token of this service")
    token_id, secret, check = match.groups()
    if not hmac.compare_digest(check, _checksum(text[:-_CHECK])):
        raise BadToken("the token is incomplete or misspelt")
    return token_id, secret


def _checksum(text: str) -> str:
    number, letters = zlib.crc32(text.encode()), []
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
    return "".join(reversed(letters))


def _letters(count: int, alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(count))


def _check(
    owner: str, scopes: Collection[str], now: datetime, expires_at: AwareDatetime | None
) -> None:
    if not owner or len(owner) > MOST_OWNER or not owner.isprintable():
        raise UserError(
            f"owner {owner[:80]!r}: give 1 to {MOST_OWNER} characters, none a control character"
        )
    known = ", ".join(SCOPES)
    if not scopes:
        raise UserError(f"no scopes: give some of {known}")
    for scope in scopes:
        if scope not in SCOPES:
            raise UserError(f"scope {scope!r} is not known; choose of {known}")
    if expires_at is not None and expires_at <= now:
        raise UserError(f"the token would expire at {expires_at}, which is past; give a later time")

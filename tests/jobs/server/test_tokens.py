"""Tokens: shown once, hashed in the store, refused for the right reason."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.storage.layout import TOKEN_KEY, TOKENS
from cluster.storage.object_store import ObjectStore
from jobs.server import tokens as module
from jobs.server.tokens import SCOPES, BadToken, Principal, Tokens, id_of
from tests.support.effort import examples

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def judged(tokens: Tokens, text: str, at: datetime = NOW) -> Principal:
    return tokens.judge(text, tokens.read(id_of(text)), at)


def test_a_token_stands_for_its_owner_and_scopes(store: ObjectStore) -> None:
    text, record = Tokens(store).create("ada", ["jobs:read", "results:read"], NOW, by="root")
    who = judged(Tokens(store), text)  # another process
    assert (who.owner, who.token_id) == ("ada", record.token_id)
    assert [scope for scope in SCOPES if who.may(scope)] == ["jobs:read", "results:read"]
    assert who.sees("ada")
    assert not who.sees("bob")


def test_an_admin_may_everything(local: ObjectStore) -> None:
    who = judged(tokens := Tokens(local), tokens.create("root", ["admin"], NOW, by="x")[0])
    assert all(map(who.may, SCOPES))
    assert who.sees("anybody")


def test_the_store_holds_no_secret(local: ObjectStore) -> None:
    text, record = Tokens(local).create("ada", ["admin"], NOW, by="root")
    secret = text.split("_")[2]
    kept = b"".join(local.get(info.key) for info in local.list(""))
    assert secret.encode() not in kept
    assert secret[:43].encode() not in kept
    assert record.mac.encode() in kept


def test_the_key_is_made_once(local: ObjectStore) -> None:
    Tokens(local)
    key = local.get(TOKEN_KEY)
    Tokens(local)
    assert local.get(TOKEN_KEY) == key
    assert len(bytes.fromhex(key.decode())) == 32


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: "", "not a token"),
        (lambda _: "un0_", "not a token"),
        (lambda text: text.upper(), "not a token"),
        (lambda text: text + "\n", "not a token"),
        (lambda text: text + "x", "not a token"),
        (lambda text: text[:-1], "not a token"),
        (lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"), "misspelt"),
        (lambda text: text[:20] + text[20:40].swapcase() + text[40:], "misspelt"),
        (lambda text: "un0_" + "0" * 12 + text[16:], "misspelt"),
    ],
)
def test_what_is_no_token_is_refused_without_asking_the_store(
    local: ObjectStore, change: Callable[[str], str], why: str
) -> None:
    text, _ = Tokens(local).create("ada", ["admin"], NOW, by="root")
    with pytest.raises(BadToken, match=why) as refused:
        id_of(change(text))
    assert text[17:40] not in str(refused.value)


def test_another_secret_of_a_known_id_is_refused(local: ObjectStore) -> None:
    tokens = Tokens(local)
    text, record = tokens.create("ada", ["admin"], NOW, by="root")
    head = f"un0_{record.token_id}_{'A' * 43}"
    forged = head + module._checksum(head)
    assert id_of(forged) == record.token_id
    with pytest.raises(BadToken, match="not known"):
        judged(tokens, forged)
    assert judged(tokens, text).owner == "ada"


def test_an_expired_and_a_revoked_token_are_refused(local: ObjectStore) -> None:
    tokens = Tokens(local)
    later = NOW + timedelta(hours=1)
    text, record = tokens.create("ada", ["admin"], NOW, by="root", expires_at=later)
    assert judged(tokens, text, later - timedelta(seconds=1)).owner == "ada"
    with pytest.raises(BadToken, match="expired"):
        judged(tokens, text, later)
    revoked = tokens.revoke(record.token_id, NOW)
    assert tokens.revoke(record.token_id, later) == revoked  # the first time counts
    with pytest.raises(BadToken, match="revoked"):
        judged(tokens, text)


def test_a_token_of_another_store_is_not_known(local: ObjectStore, s3_store: ObjectStore) -> None:
    text, _ = Tokens(s3_store).create("ada", ["admin"], NOW, by="root")
    with pytest.raises(BadToken, match="not known"):
        judged(Tokens(local), text)


def test_unknown_and_wrong_tokens_are_compared_alike(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work for both: one HMAC, one comparison of equal lengths in constant time."""
    tokens = Tokens(local)
    text, record = tokens.create("ada", ["admin"], NOW, by="root")
    compared: list[tuple[int, int]] = []
    made: list[int] = []
    compare, new = hmac.compare_digest, hmac.new

    def counted(first: Any, second: Any) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    def counted_new(*args: Any) -> Any:
        made.append(1)
        return new(*args)

    monkeypatch.setattr(module.hmac, "compare_digest", counted)
    monkeypatch.setattr(module.hmac, "new", counted_new)
    work = []
    for found in (record, None, record.model_copy(update={"mac": "0" * 64})):
        compared.clear()
        made.clear()
        with suppress(BadToken):
            tokens.judge(text, found, NOW)
        work.append((list(compared), len(made)))
    assert work[0] == work[1] == work[2]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "a\nb"}, "control character"),
        ({"owner": "x" * 257}, "256"),
        ({"scopes": []}, "no scopes"),
        ({"scopes": ["jobs:read", "root"]}, "'root' is not known; choose of jobs:read"),
        ({"expires_at": NOW}, "is past"),
    ],
)
def test_a_token_that_cannot_be_is_not_made(
    local: ObjectStore, changes: dict[str, Any], why: str
) -> None:
    tokens = Tokens(local)
    with pytest.raises(UserError, match=why):
        tokens.create(**{"owner": "ada", "scopes": ["admin"], "now": NOW, "by": "x"} | changes)
    assert list(local.list(TOKENS)) == []


def test_revoking_what_is_not_there_says_so(local: ObjectStore) -> None:
    for token_id in ("0" * 12, "../../jobs", ""):
        with pytest.raises(UserError, match="no token"):
            Tokens(local).revoke(token_id, NOW)


def test_tokens_are_listed_with_their_last_use(local: ObjectStore) -> None:
    tokens = Tokens(local)
    made = [
        tokens.create(o, ["admin"], NOW + timedelta(hours=i), by="x")[1] for i, o in enumerate("ba")
    ]
    tokens.note_use(made[0].token_id, NOW.date())
    assert tokens.all() == made
    assert [tokens.last_use(record.token_id) for record in made] == [NOW.date(), None]


@given(st.text("un0_aZ9\u0660\n", max_size=70) | st.text("0aZ", min_size=49, max_size=49))
@settings(max_examples=examples(2000))
def test_no_text_that_was_not_made_passes_as_a_token(text: str) -> None:
    for each in (text, f"un0_{'a' * 12}_{text}"):
        with pytest.raises(BadToken):
            id_of(each)

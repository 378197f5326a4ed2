"""``un0 token``: create, list, revoke."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.clock import utc_now
from cluster.storage.open import open_store
from jobs.server.tokens import BadToken, Tokens, id_of
from tests.support.cli import un0, un0_json


def test_a_token_is_made_listed_and_revoked(tmp_path: Path) -> None:
    where = ("--store", str(tmp_path))
    scopes = ("--scopes", "jobs:read, jobs:write")
    made = un0_json("token", "create", "--owner", "ada", *scopes, "--expires", "30d", *where)
    tokens = Tokens(open_store(str(tmp_path), probe=False))
    assert id_of(made["token"]) == made["id"]
    who = tokens.judge(made["token"], tokens.read(made["id"]), utc_now())
    assert (who.owner, who.scopes) == ("ada", {"jobs:read", "jobs:write"})
    plain = un0("token", "create", "--owner", "bob", *where).stdout.strip()
    listed = un0_json("token", "list", *where)
    assert [row["owner"] for row in listed] == ["ada", "bob"]
    assert listed[1]["scopes"] == ["jobs:read", "jobs:write", "results:read"]
    assert made["token"] not in json.dumps(listed)
    assert un0_json("token", "revoke", made["id"], *where)["revoked_at"]
    with pytest.raises(BadToken, match="revoked"):
        tokens.judge(made["token"], tokens.read(made["id"]), utc_now())
    table = un0("token", "list", *where).stdout
    assert "revoked" in table
    assert plain not in table
    audit = [
        json.loads(line)["action"]
        for file in sorted(tmp_path.glob("service/audit/*/*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    assert sorted(audit) == ["token.create", "token.create", "token.revoke"]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    where = ("--store", str(tmp_path))
    done = un0("token", "create", "--owner", "ada", "--scopes", "root", *where)
    assert done.returncode == 2
    assert "scope 'root' is not known; choose of jobs:read" in done.stderr
    done = un0("token", "revoke", "nothere", *where)
    assert done.returncode == 2
    assert "un0 token list" in done.stderr

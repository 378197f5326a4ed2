"""The tutorial docs/tutorials/a-day-with-a-server.md, from the token to the report."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import Running, running, un0, un0_json
from tests.support.serving import supervisor_of, until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = "60000"


@contextmanager
def serving(store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """`un0 serve` on a port, which the environment names."""
    with running("serve", "--store", store, "--http", "127.0.0.1:0") as serve:
        serve.until(lambda: "ready: http" in serve.stdout)
        found = re.search(r"ready: (http://\S+)", serve.stdout)
        assert found
        monkeypatch.setenv("UN0_SERVER", found.group(1))
        yield serve


def committed(job_id: str) -> int:
    return int(un0_json("status", job_id)["counts"]["committed"])


def test_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = str(tmp_path / "day")
    scopes = "jobs:read,jobs:write,results:read"
    made = un0_json("token", "create", "--store", store, "--owner", "ann", "--scopes", scopes)
    monkeypatch.setenv("UN0_TOKEN", made["token"])

    with serving(store, monkeypatch) as serve:
        assert un0_json("quote", "--count", COUNT)["energy_j"] is None
        rows = tmp_path / "day/uploads/rows.csv"
        rows.parent.mkdir()
        rows.write_text("class,custom_id\nSneaker,a\nBag,b\nSneaker,c\n")
        un0_json("submit", "--inputs", "store:uploads/rows.csv", "--job-id", "list")
        big = ("submit", "--count", COUNT, "--job-id", "big", "--shard-images", "256",
               "--label", "team=vision", "--idempotency-key", "monday")  # fmt: skip
        assert un0_json(*big)["job_id"] == un0_json(*big)["job_id"] == "big"
        until(lambda: committed("big") > 0, "a first shard")

        assert un0_json("pause", "big", "--reason", "lunch")["state"] in ("pausing", "paused")
        until(lambda: un0_json("status", "big")["state"] == "paused", "the pause")
        at_lunch = committed("big")
        un0_json("resume", "big")
        until(lambda: committed("big") > at_lunch, "a shard after the pause")

        supervisor = supervisor_of(serve)
        serve.process.send_signal(signal.SIGKILL)
        until(lambda: not supervisor.is_running(), "the supervisor to end")

    monkeypatch.delenv("UN0_SERVER")
    left = un0_json("status", "big", "--store", store)
    assert left["state"] == "queued"
    assert left["reason"]["code"] in ("server_lost", "waiting_for_server", "waiting_for_turn")
    assert left["counts"]["committed"] > at_lunch

    with serving(store, monkeypatch) as serve:
        snippet = un0("results", "big", "--format", "duckdb").stdout
        read = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True)
        assert read.returncode == 0, read.stderr
        assert "Sneaker" in read.stdout

        un0_json("submit", "--count", "1M", "--job-id", "mistake")
        un0_json("cancel", "mistake", "--reason", "wrong model")
        until(lambda: un0_json("status", "mistake")["state"] == "cancelled", "the cancel")
        until(lambda: un0_json("status", "list")["state"] == "completed", "the list")
        until(lambda: un0_json("status", "big")["state"] == "completed", "the end")
        assert un0_json("quote", "--count", COUNT)["energy_j"] is not None, "by what was measured"
        history = un0("logs", "big").stdout
        assert "lunch" in history
        serve.process.send_signal(signal.SIGTERM)  # by which its energy log is written to the end
        serve.wait()

    monkeypatch.delenv("UN0_SERVER")
    verified = un0_json("verify", "big", "--store", store)
    assert verified["ok"] is True
    assert verified["images"] == int(COUNT)
    ids = un0_json("query", "select custom_id from images where job_id = 'list' order by index",
                   "--store", store)  # fmt: skip
    assert [row["custom_id"] for row in ids] == ["a", "b", "c"]
    report = un0_json("report", "--store", store, "--by", "owner")
    (ann,) = [row for row in report["rows"] if row["key"] == "ann"]
    assert int(COUNT) / 2 < ann["images"] <= int(COUNT) + 3, (
        "but what a killed meter had not written"
    )
    assert report["closure_error_mj"] == 0

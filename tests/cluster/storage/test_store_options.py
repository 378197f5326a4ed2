"""How the store's options get from the command line to the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.errors import UserError
from cluster.storage.object_store import StoreConfig
from cluster.types import JobRecord
from jobs.cli.main import app
from jobs.cli.run import resume_command
from tests.support import jobfactory

WRITING = [["generate", "--count", "1"], ["resume", "j"], ["compact"], ["calibrate"]]


@pytest.mark.parametrize("command", WRITING, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("sse", "said"), [(["--sse", "rot13"], "choose AES256"), (["--sse-kms-key", "k"], "--sse")]
)
def test_every_command_that_writes_passes_encryption_on(
    command: list[str], sse: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, [*command, "--store", "s3://bucket/x", *sse])
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)


def test_the_way_to_go_on_names_the_same_store(tmp_path: Path) -> None:
    record = JobRecord(
        workload=jobfactory.workload("j"), spec={}, owner="me", submitted_at=jobfactory.START
    )
    where = {"store": str(tmp_path), "endpoint_url": None, "single_writer": True,
             "sse": "aws:kms", "sse_kms_key": "key-1", "address": None}  # fmt: skip
    assert resume_command(record, where) == (
        f"un0 resume j --store {tmp_path} --sse aws:kms --sse-kms-key key-1 --single-writer"
    )


def test_names_made_of_a_store_stay_as_older_versions_made_them() -> None:
    plain = StoreConfig("s3://bucket/prefix")
    sealed = replace(plain, sse="aws:kms", sse_kms_key="key")
    assert plain.digest() == plain.digest(encryption=True) == "df961298d66b7940"
    assert sealed.digest() == plain.digest(), "one meter a node, however its rows are encrypted"
    assert sealed.digest(encryption=True) == "661faee54db29c3c"

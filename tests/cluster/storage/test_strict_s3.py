"""Buckets and servers with rules of their own: what works on them, and the messages to the user."""

from __future__ import annotations

import os
import pickle
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cluster.errors import UserError
from cluster.storage import s3, s3_writes
from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support.effort import costly
from tests.support.strict_s3 import CHECKSUM, CONDITION, StrictS3

BOUND = 40  # requests, retries included, after which a refusal must have come
Behind = Callable[[str], StrictS3]


@pytest.fixture
def behind(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    """A proxy with the quirk before the real server; the environment leads to it."""
    with ExitStack() as stack:

        def start(quirk: str) -> StrictS3:
            proxy = stack.enter_context(StrictS3(s3.endpoint_url, quirk))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint_url)
            return proxy

        yield start


def address() -> str:
    return f"s3://un0/strict-{uuid.uuid4().hex}"


def refusal(**options: str) -> str:
    """What opening says when it refuses: one line without a credential."""
    with pytest.raises(UserError) as refused:
        open_store(address(), **options)  # type: ignore[arg-type]
    text = str(refused.value)
    assert "\n" not in text
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[name] not in text
    return text


def use(store: ObjectStore) -> None:
    """Do what a job does."""
    assert store.put_if_absent("jobs/x/spec.json", b"1")
    assert not store.put_if_absent("jobs/x/spec.json", b"2")
    store.put("jobs/x/images", b"3")
    assert store.get("jobs/x/spec.json") == b"1"
    assert [info.key for info in store.list("jobs/")] == ["jobs/x/images", "jobs/x/spec.json"]


def write_on(store: ObjectStore) -> None:
    for number in range(BOUND):
        store.put(f"x/{number}", b"")


@pytest.mark.parametrize(
    ("quirk", "checksum"),
    costly(
        ("none", "crc32"),
        ("objectlock", "crc32"),
        ("checksum", "md5"),
        ("nochecksum", None),
        ("inm409", "crc32"),
        ("nolist_key", "crc32"),
        fast=3,
    ),
)
def test_what_a_server_takes_is_found_once_and_kept(
    quirk: str, checksum: str | None, behind: Behind
) -> None:
    proxy = behind(quirk)
    store = open_store(address())
    assert store.config.checksum == checksum
    use(store)
    proxy.heads.clear()
    replica = open_store(pickle.loads(pickle.dumps(store.config)), probe=False)
    assert proxy.requests == 0
    replica.put("jobs/x/more", b"4")
    header = {"crc32": b"\r\nx-amz-checksum-crc32:", "md5": b"\r\ncontent-md5:"}
    assert [checksum and header[checksum] in head for head in proxy.heads] in ([True], [None])


@pytest.mark.parametrize("quirk", ["objectlock", "checksum", "sse"])
def test_large_objects_obey_the_same_rules(
    quirk: str, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(quirk)
    part = 5 * 2**20
    monkeypatch.setattr(s3, "MULTIPART_BYTES", part)
    monkeypatch.setattr(s3_writes, "PART_BYTES", part)
    store = open_store(address(), sse="AES256" if quirk == "sse" else None)
    data = os.urandom(2 * part + 1)
    store.put("big", data)
    assert store.get("big") == data


def test_a_bucket_that_demands_encryption(behind: Behind) -> None:
    proxy = behind("sse")
    text = refusal()
    assert "s3:PutObject" in text
    assert "--sse" in text
    assert "explicit deny in a resource-based policy" in text  # the server's own words
    proxy.heads.clear()
    use(open_store(address(), sse="AES256"))
    puts = [head for head in proxy.heads if head.startswith(b"put")]
    assert all(b"\r\nx-amz-server-side-encryption: aes256" in head for head in puts)


def test_the_environment_may_ask_for_encryption(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind("sse")
    monkeypatch.setenv("UN0_SSE", "AES256")
    assert open_store(address()).config.sse == "AES256"


@pytest.mark.parametrize(
    ("quirk", "said"),
    costly(
        ("noput", ["grant s3:PutObject", "not authorized to perform: s3:PutObject"]),
        ("noget", ["grant s3:GetObject", "not authorized to perform: s3:GetObject"]),
        ("nolist", ["grant s3:ListBucket", "not authorized to perform: s3:ListBucket"]),
        ("nodelete", ["grant s3:DeleteObject", "not authorized to perform: s3:DeleteObject"]),
        ("inm400", ["conditional writes", "--single-writer"]),
        ("inm501", ["conditional writes", "--single-writer"]),
        ("redirect301", ["AWS_REGION to eu-central-1"]),
        ("redirect307", ["AWS_REGION to eu-central-1", "Please re-send"]),
        ("redirect307_nowhere", ["another region", "Please re-send"]),
        ("expire", ["renew", "The provided token has expired."]),
        ("skew", ["clock is wrong", "behind the server's", "NTP"]),
        ("html", ["web page", "log in"]),
        ("html403", ["web page", "403"]),
        fast=6,
    ),
)
def test_a_refusal_names_the_fix_within_a_few_requests(
    quirk: str, said: list[str], behind: Behind
) -> None:
    proxy = behind(quirk)
    if quirk == "expire":
        store = open_store(address(), probe=False)
        with pytest.raises(UserError) as refused:
            write_on(store)
        text = str(refused.value)
    else:
        text = refusal()
    for words in said:
        assert words in text
    if quirk == "skew":
        assert re.search(r"\b1:(19:5|20:)", text)
    assert 0 < proxy.requests <= BOUND


def test_nothing_is_left_of_a_probe_that_fails(behind: Behind) -> None:
    behind("inm400")
    place = address()
    with pytest.raises(UserError):
        open_store(place)
    assert list(open_store(place, probe=False).list("")) == []


@pytest.mark.parametrize("quirk", ["inm400", "inm501"])
def test_a_single_writer_needs_no_conditions(quirk: str, behind: Behind) -> None:
    proxy = behind(quirk)
    use(open_store(address(), single_writer=True))
    assert any(CONDITION in head for head in proxy.heads)


def test_a_busy_server_is_asked_again(behind: Behind) -> None:
    behind("slow503")
    open_store(address())


def test_no_checksum_goes_out_where_opening_did_not_ask(behind: Behind) -> None:
    proxy = behind("none")
    open_store(address(), probe=False).put("x", b"1")
    assert not any(CHECKSUM.search(head) or b"content-md5" in head for head in proxy.heads)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sse": "aes-256"}, "choose AES256, aws:kms, aws:kms:dsse"),
        ({"sse_kms_key": "k"}, "--sse aws:kms"),
        ({"sse": "AES256", "sse_kms_key": "k"}, "--sse aws:kms"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_encryption_options_that_do_not_fit(options: dict[str, str], said: str) -> None:
    assert said in refusal(**options)


def test_a_directory_cannot_encrypt(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(UserError, match="leave them out"):
        open_store(str(tmp_path), sse="AES256")


# A proxy of the environment's


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_answer_is_named(
    scheme: str, s3: DevS3, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:pass-word@127.0.0.1:{dead_port}/")
    text = refusal(endpoint_url=s3.endpoint_url.replace("http", scheme))
    assert f"the proxy 127.0.0.1:{dead_port}" in text
    assert "NO_PROXY" in text
    assert "pass-word" not in text


def test_a_proxy_that_answers_with_a_page_is_named(
    s3: DevS3, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quirk in ("html", "html403"):
        proxy = behind(quirk)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.endpoint_url)
        text = refusal(endpoint_url=s3.endpoint_url)
        assert f"the proxy {proxy.endpoint_url.removeprefix('http://')}" in text
        assert "NO_PROXY" in text


def test_a_proxy_that_is_passed_by_is_not_blamed(
    dead_port: int, monkeypatch: pytest.MonkeyPatch, s3: DevS3
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{dead_port}")
    assert "proxy" not in refusal(endpoint_url=f"http://127.0.0.1:{dead_port}")
    assert open_store(address()).config.endpoint_url == s3.endpoint_url

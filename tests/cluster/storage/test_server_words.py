"""What is shown of a server's own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.s3_errors import MESSAGE_CHARS, clock_offset, clock_words, server_words


@given(st.text(max_size=2000), st.text(alphabet="abcXYZ019+/=", min_size=8, max_size=60))
def test_any_message_becomes_one_bounded_line_without_the_secrets(text: str, secret: str) -> None:
    shown = server_words(f"{text} {secret} {text}", [secret])
    assert len(shown) <= MESSAGE_CHARS + 1
    assert shown.isprintable()
    assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [
        "User: arn:aws:iam::123456789012:user/x is not authorized to perform: s3:PutObject on "
        "resource: arn:aws:s3:::bucket/key with an explicit deny in a resource-based policy",
        "KMS key arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab "
        "is pending deletion.",
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests",
        "the secret key is wrong",
    ],
)
def test_what_is_no_secret_is_shown_whole(text: str) -> None:
    assert server_words(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
        "frJIUN8DYpKDtOLCwo//yllqDzg=",
    ],
)
def test_keys_and_signatures_are_not_shown(secret: str) -> None:
    for text in (f"wrong: {secret}.", f"Signature={secret}&x=1", f"X-Amz-Credential: {secret}/x"):
        assert secret not in server_words(text)


def test_the_clock_is_judged_by_the_reply() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    offset = clock_offset("Fri, 02 Jan 2026 04:24:05 GMT", now)
    assert offset == timedelta(hours=-1, minutes=-20)
    assert clock_words(offset) == "1:20:00 behind the server's"
    assert clock_words(-offset) == "1:20:00 ahead of the server's"
    assert clock_offset("yesterday", now) is None

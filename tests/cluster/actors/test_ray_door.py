"""Which way into a cluster there is, for each pair of a cluster and what its user has set."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from cluster.actors import ray_door
from cluster.actors.ray_door import Door, Token, Unreachable, environment, find_token, knock
from cluster.actors.ray_door import settings_for as settings
from cluster.errors import UserError

OPEN, SHUT = Door(False, None, "2.60.0"), Door(True, None, None)
TAKEN, REFUSED = Door(True, True, "2.60.0"), Door(True, False, None)
AT = "10.0.0.1:6379"


@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_TOKEN": "t"}])
@pytest.mark.parametrize("mode", [{}, {"RAY_AUTH_MODE": "disabled"}])
def test_a_cluster_without_tokens_is_sent_none_whatever_is_at_hand(
    token: dict[str, str], mode: dict[str, str]
) -> None:
    assert settings(AT, OPEN, token | mode) == {"RAY_AUTH_MODE": "disabled"}


@pytest.mark.parametrize("mode", [{}, {"RAY_AUTH_MODE": "Token"}])
def test_a_cluster_that_demands_a_token_gets_the_one_that_is_found(mode: dict[str, str]) -> None:
    given = settings(AT, TAKEN, {"RAY_AUTH_TOKEN": "t"} | mode)
    assert given == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}


@pytest.mark.parametrize(
    ("door", "env", "fix"),
    [
        (OPEN, {"RAY_AUTH_MODE": "token"}, "unset RAY_AUTH_MODE"),
        (SHUT, {}, "set RAY_AUTH_TOKEN"),
        (SHUT, {"RAY_AUTH_MODE": "token"}, "set RAY_AUTH_TOKEN"),
        (SHUT, {"RAY_AUTH_MODE": "disabled"}, "unset RAY_AUTH_MODE"),
        (SHUT, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "t"}, "unset RAY_AUTH_MODE"),
        (REFUSED, {"RAY_AUTH_TOKEN": "t"}, "refuses the token of RAY_AUTH_TOKEN"),
        (OPEN, {"RAY_AUTH_MODE": "tokens"}, "unset it"),
    ],
)
def test_no_way_in_is_one_line_with_the_fix(
    door: Door, env: dict[str, str], fix: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        settings(AT, door, {"HOME": str(tmp_path)} | env)
    assert fix in str(error.value)
    assert "\n" not in str(error.value)
    assert "'t'" not in str(error.value), "a token is never shown"


def test_a_token_is_found_where_ray_looks_in_its_order(tmp_path: Path) -> None:
    home, named = tmp_path / ".ray" / "auth_token", tmp_path / "named"
    assert find_token({"HOME": str(tmp_path)}) is None
    home.parent.mkdir()
    home.write_text("of-home\n")
    named.write_text("of-file\n")
    env = {"HOME": str(tmp_path)}
    assert find_token(env) == Token("of-home", str(home))
    env["RAY_AUTH_TOKEN_PATH"] = str(named)
    assert find_token(env) == Token("of-file", str(named))
    env["RAY_AUTH_TOKEN"] = "of-env"
    assert find_token(env) == Token("of-env", "RAY_AUTH_TOKEN")


def test_a_named_token_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(UserError, match="cannot be read"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(path)})
    path.touch()
    with pytest.raises(UserError, match="is empty"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(path)})


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}):
        assert ray_door.AuthenticationTokenLoader.instance().get_raw_token() == "t"
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """What a Ray head says at its door."""

    token: str | None = None

    def CheckAlive(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802, ARG002
        given = dict(context.invocation_metadata()).get("authorization")
        if self.token is not None and given != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return gcs_service_pb2.CheckAliveReply(ray_version="2.60.0")


def test_a_head_says_whether_it_wants_a_token_and_takes_this_one() -> None:
    head, server = Head(), grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(head, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        assert knock(address, Token("any", "")) == OPEN
        head.token = "right"
        assert knock(address, None) == SHUT
        assert knock(address, Token("wrong", "")) == REFUSED
        assert knock(address, Token("right", "")) == TAKEN
    finally:
        server.stop(None)


def test_who_is_no_head_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_door, "KNOCK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"no answer within|unavailable"):
            knock(address, None)
    with pytest.raises(Unreachable, match=r"refused|reset|closed"):
        knock(address, None)
    dashboard = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=dashboard.serve_forever, daemon=True).start()
    try:
        with pytest.raises(Unreachable, match="no Ray head"):
            knock(f"127.0.0.1:{dashboard.server_port}", None)
    finally:
        dashboard.shutdown()
        dashboard.server_close()

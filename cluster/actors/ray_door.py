"""At a cluster's door: whether it answers and demands a token, which one is at hand, what to set.

Ray itself never says that the two sides disagree: a driver that sends a token to a cluster without
tokens waits without end, one without a token learns that there is no cluster. Here every question
is answered within some seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest, GetAllNodeInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from cluster.errors import UserError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
KNOCK_S = 10.0
# What `ray.init` leaves behind in the environment of the process that calls it
SET_BY_RAY = ("PYTHONBREAKPOINT", "RAY_USAGE_STATS_ENABLED")
HEAD_TOKEN = "(on its head: `ray get-auth-token`)"
# Of an HTTP server, the dashboard and the Ray Client server, which users take for the head
NO_HEAD = (
    "what listens there is no Ray head: give the port of `ray start --port`, which is 6379 unless "
    "chosen otherwise, not the dashboard's 8265 or Ray Client's 10001"
)


@dataclass(frozen=True)
class Token:
    """A token and where it was found, for messages. The value is never shown."""

    value: str
    source: str


@dataclass(frozen=True)
class Door:
    """What a head answered. demands: a token. accepts: the one that was found; None without one."""

    demands: bool
    accepts: bool | None
    ray_version: str | None  # None: nobody without a token hears it


class Unreachable(Exception):
    """No head answers: why, in words."""


def find_token(env: Mapping[str, str]) -> Token | None:
    """The token that Ray would take, in its order: the variable, the named file, the default one.

    Raises UserError if the file that is named cannot be read.
    """
    if env.get(TOKEN, "").strip():
        return Token(env[TOKEN].strip(), TOKEN)
    if named := env.get(TOKEN_PATH):
        try:
            value = Path(named).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{TOKEN_PATH}={named!r} cannot be read: {error}; name a file with the cluster's "
                f"token {HEAD_TOKEN}, or unset it"
            ) from None
        if not value:
            raise UserError(f"{TOKEN_PATH}={named!r} is empty; write the cluster's token into it")
        return Token(value, named)
    home = env.get("HOME")
    try:
        path = (Path(home) if home else Path.home()) / ".ray" / "auth_token"
        value = path.read_text().strip()
    except (OSError, RuntimeError, UnicodeDecodeError):  # no such file, no home, no text
        return None
    return Token(value, str(path)) if value else None


def knock(address: str, token: Token | None) -> Door:
    """Ask the head at host:port whether it wants a token, and whether it takes this one.

    Raises Unreachable within some seconds if no Ray head answers.
    """
    with _channel(address) as channel:
        version = _alive(channel, None)
        if version is not None:
            return Door(False, None, version)
        if token is None:
            return Door(True, None, None)
        version = _alive(channel, token.value)
        return Door(True, version is not None, version)


def settings_for(address: str, door: Door, env: Mapping[str, str]) -> dict[str, str]:
    """The environment with which Ray gets in. Raises UserError with the way in if there is none."""
    mode = env.get(MODE, "").lower()
    if mode not in ("", "token", "disabled"):
        raise UserError(f"{MODE}={env[MODE]!r} is neither 'token' nor 'disabled'; unset it")
    if not door.demands:
        if mode == "token":
            raise UserError(
                f"{MODE}=token, but the Ray cluster at {address!r} uses no tokens; unset {MODE}, "
                f"or start the cluster with {MODE}=token"
            )
        return {MODE: "disabled"}
    if mode == "disabled":
        raise UserError(
            f"{MODE}=disabled, but the Ray cluster at {address!r} demands a token; unset {MODE} "
            f"and set {TOKEN} to the cluster's token {HEAD_TOKEN}"
        )
    token = find_token(env)
    if token is None:
        raise UserError(
            f"the Ray cluster at {address!r} demands a token and none was found in {TOKEN}, "
            f"{TOKEN_PATH} or ~/.ray/auth_token; set {TOKEN} to the cluster's token {HEAD_TOKEN}"
        )
    if not door.accepts:
        raise UserError(
            f"the Ray cluster at {address!r} refuses the token of {token.source}; set {TOKEN} to "
            f"the cluster's token {HEAD_TOKEN}"
        )
    return {MODE: "token", TOKEN: token.value}


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """These variables for Ray and the processes it starts; afterwards all is as before."""
    before = {name: os.environ.get(name) for name in (*settings, *SET_BY_RAY)}
    os.environ.update(settings)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Ray reads its mode and token once a process: have it look again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def nodes_among(address: str, node_ids: Iterable[str], token: str | None) -> list[str]:
    """host:port of those of the nodes, by their hexadecimal ids, that are the cluster's and alive.

    Raises Unreachable.
    """
    selector = GetAllNodeInfoRequest.NodeSelector
    wanted = [selector(node_id=bytes.fromhex(node_id)) for node_id in node_ids]
    request = GetAllNodeInfoRequest(node_selectors=wanted)
    with _channel(address) as channel:
        try:
            reply = NodeInfoGcsServiceStub(channel).GetAllNodeInfo(
                request, timeout=KNOCK_S, metadata=_bearer(token)
            )
        except grpc.RpcError as error:
            raise Unreachable(_in_words(error.code(), error.details() or "")) from None
    alive = [node for node in reply.node_info_list if node.state == GcsNodeInfo.ALIVE]
    return [f"{node.node_manager_address}:{node.node_manager_port}" for node in alive]


def answers(address: str) -> bool:
    """Whether a Ray process there says anything, a refusal included."""
    with _channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes)
        try:
            check(b"", timeout=KNOCK_S)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return error.code() not in silent
    return True


def _channel(address: str) -> grpc.Channel:
    """As in Ray: no proxy is asked for a way to the cluster."""
    return grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])


def _bearer(token: str | None) -> list[tuple[str, str]] | None:
    return [("authorization", f"Bearer {token}")] if token else None


def _alive(channel: grpc.Channel, token: str | None) -> str | None:
    """The head's version of Ray; None if it wants another token."""
    try:
        reply = NodeInfoGcsServiceStub(channel).CheckAlive(
            CheckAliveRequest(), timeout=KNOCK_S, metadata=_bearer(token)
        )
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return None
        raise Unreachable(_in_words(error.code(), error.details() or "")) from None
    return str(reply.ray_version)


def _in_words(code: grpc.StatusCode, details: str) -> str:
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {KNOCK_S:.0f} s"
    if code != grpc.StatusCode.UNAVAILABLE or "HTTP/2" in details:
        return NO_HEAD
    return details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ") or "unavailable"

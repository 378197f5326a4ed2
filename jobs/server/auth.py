"""Who asks: bearer tokens and their scopes (RFC 6750), and how often they may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from cluster.clock import utc_now
from jobs.server.context import Context, InContext
from jobs.server.problems import Refusal
from jobs.server.tokens import SCOPES, BadToken, Principal, Tokens, id_of

ANYBODY = Principal(None, None, frozenset(SCOPES))
_REALM = 'Bearer realm="un0"'
_HOW = "send `Authorization: Bearer un0_…`; `un0 token create` makes one"

bearer = HTTPBearer(auto_error=False, description="A token made by `un0 token create`.")


async def principal(
    request: Request,
    response: Response,
    context: InContext,
    scopes: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Principal:
    """Whom the request is from. Raises Refusal: 401, 403, 429."""
    if context.auth.tokens is None:
        return ANYBODY
    who = await _whose(request, context, context.auth.tokens, credentials)
    for scope in scopes.scopes:
        if not who.may(scope):
            context.log(request, "auth.scope", who, 403, detail=scope)
            challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
            detail = f"the token lacks the scope {scope}; have one made with it"
            raise Refusal(403, "forbidden", detail, headers={"WWW-Authenticate": challenge})
    kind = "reads" if request.method == "GET" else "writes"
    assert who.token_id is not None
    response.headers.update(context.limiter.hit(kind, who.token_id))
    await context.note_use(who.token_id)
    return who


async def _whose(
    request: Request,
    context: Context,
    tokens: Tokens,
    credentials: HTTPAuthorizationCredentials | None,
) -> Principal:
    address = request.client.host if request.client else "unknown"
    context.limiter.check("failures", address)
    if credentials is None:
        headers = {"WWW-Authenticate": _REALM}
        raise Refusal(401, "unauthenticated", f"no token was sent; {_HOW}", headers=headers)
    text = credentials.credentials
    try:
        return tokens.judge(text, await context.records.get(id_of(text)), utc_now())
    except BadToken as error:
        context.limiter.hit("failures", address)
        context.log(request, "auth.token", None, 401, detail=str(error))
        challenge = f'{_REALM}, error="invalid_token", error_description="{error}"'
        headers = {"WWW-Authenticate": challenge}
        raise Refusal(401, "unauthenticated", f"{error}; {_HOW}", headers=headers) from None


ReadsJobs = Annotated[Principal, Security(principal, scopes=["jobs:read"])]
WritesJobs = Annotated[Principal, Security(principal, scopes=["jobs:write"])]
ReadsResults = Annotated[Principal, Security(principal, scopes=["results:read"])]
ReadsFleet = Annotated[Principal, Security(principal, scopes=["fleet:read"])]

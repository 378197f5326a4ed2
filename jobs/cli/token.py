"""``un0 token``: make, list and revoke tokens of the HTTP API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import EndpointUrl, Json, Store, plain_table, quantity, show_json, show_table
from jobs.defaults import DEFAULT_STORE
from un0.quantities import parse_duration_s

if TYPE_CHECKING:
    from cluster.storage.object_store import ObjectStore
    from jobs.server.tokens import TokenRecord, Tokens

token = typer.Typer(
    help="Make, list and revoke tokens of the HTTP API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@token.callback()
def _token() -> None:
    """Make, list and revoke tokens of the HTTP API."""


@token.command("create")
def create_command(
    owner: Annotated[str, typer.Option(help="Whose jobs it submits and sees.")],
    scopes: Annotated[
        str,
        typer.Option(
            help="Some of jobs:read, jobs:write, results:read, fleet:read, fleet:admin, admin."
        ),
    ] = "jobs:read,jobs:write,results:read",
    expires: Annotated[
        float | None,
        typer.Option(
            parser=quantity(parse_duration_s),
            metavar="TIME",
            help="End it after so long: 12h, 30d. Default: never.",
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Make a token, and print it: it is shown this once."""
    from cluster.clock import utc_now

    opened, tokens = _tokens(store, endpoint_url)
    now = utc_now()
    ends = None if expires is None else now + timedelta(seconds=expires)
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    text, record = tokens.create(owner, wanted, now, by=_user(), expires_at=ends)
    _audit(opened, "token.create", record, now)
    if as_json:
        show_json({"token": text, "id": record.token_id, **_row(record)})
    else:
        print(text)


@token.command("list")
def list_command(
    store: Store = DEFAULT_STORE, endpoint_url: EndpointUrl = None, as_json: Json = False
) -> None:
    """List the tokens: whose, what for, until when, and when each was last used."""
    from rich.text import Text

    from cluster.clock import utc_now

    _, tokens = _tokens(store, endpoint_url)
    rows = [
        _row(record) | {"last_used": tokens.last_use(record.token_id)} for record in tokens.all()
    ]
    if as_json:
        show_json(rows)
        return
    table = plain_table(
        "id", "owner", "state", "scopes", "expires (UTC)", "last used", typed=("id",), indent=2
    )
    for row in rows:
        ends, used = row["expires_at"], row["last_used"]
        table.add_row(
            row["id"],
            Text(row["owner"]),
            _state(row, utc_now()),
            " ".join(row["scopes"]),
            "never" if ends is None else f"{ends:%Y-%m-%d %H:%M}",
            "never" if used is None else used.isoformat(),
        )
    show_table(table, give_way=("last used", "expires (UTC)", "scopes"))


@token.command("revoke")
def revoke_command(
    token_id: Annotated[str, typer.Argument(help="As `un0 token list` shows it.")],
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """End a token for good. Servers refuse it within seconds."""
    from cluster.clock import utc_now

    opened, tokens = _tokens(store, endpoint_url)
    record = tokens.revoke(token_id, utc_now())
    _audit(opened, "token.revoke", record, utc_now())
    if as_json:
        show_json(_row(record))
    else:
        print(f"{record.token_id}: revoked")


def _tokens(store: str, endpoint_url: str | None) -> tuple[ObjectStore, Tokens]:
    from cluster.storage.open import open_store
    from jobs.server.tokens import Tokens

    opened = open_store(store, endpoint_url=endpoint_url)
    return opened, Tokens(opened)


def _row(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.token_id,
        "owner": record.owner,
        "scopes": list(record.scopes),
        "created_at": record.created_at,
        "created_by": record.created_by,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }


def _state(row: dict[str, Any], now: datetime) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    return "expired" if row["expires_at"] is not None and row["expires_at"] <= now else "good"


def _user() -> str:
    from jobs.service.prepare import user_here

    return user_here()


def _audit(store: ObjectStore, action: str, record: TokenRecord, at: datetime) -> None:
    from jobs.server.audit import Audit, Entry

    audit = Audit(store)
    audit.add(
        Entry(at=at, action=action, owner=_user(), token_id=record.token_id, detail=record.owner)
    )
    audit.flush()

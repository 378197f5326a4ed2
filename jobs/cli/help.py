"""``un0 help``: the help of a command, as its ``--help`` prints it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from cluster.errors import UserError


def help_command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="For example: dev s3.")
    ] = None,
) -> None:
    """Show the help of a command, or the list of commands."""
    here = ctx.find_root()
    for word in words or ():
        group = here.command
        if not isinstance(group, TyperGroup):
            raise UserError(f"{here.command_path!r} has no command {word!r}: leave it out")
        name, command, _ = group.resolve_command(here, [word])
        if command is None:
            raise UserError(f"there is no command {word!r}; `un0 --help` lists them")
        here = typer.Context(command, info_name=name, parent=here)
    typer.echo(here.get_help())

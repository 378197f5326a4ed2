"""Commands that are listed from a table and imported when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class Command:
    """One line of ``un0 --help``.

    home: ``module:name`` of the function, or of the ``typer.Typer`` whose commands come below it.
    help: the first paragraph of its docstring (or the Typer's help), on one line.
    panel: the heading that ``--help`` lists it under.
    """

    name: str
    home: str
    help: str
    panel: str

    def load(self) -> Any:
        """The command itself, for Typer to run."""
        module, _, attribute = self.home.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)  # a group even if it has one command only
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(self.name)(found)
            command = get_command(alone)
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """A group whose commands stand in its table. Help and completion read no more than that."""

    table: Sequence[Command] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {c.name: TyperCommand(c.name, help=c.help) for c in self.table}

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options. A flag that is not given is False: for None, Typer would load pydantic, to
        find that it stays None."""
        params = list(super().get_params(ctx))
        for param in params:
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return params

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """The table, panel by panel."""
        for panel in dict.fromkeys(c.panel for c in self.table):
            with formatter.section(panel):
                formatter.write_dl([(c.name, c.help) for c in self.table if c.panel == panel])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that these arguments name: the real one, with its options."""
        name, stub, rest = super().resolve_command(ctx, args)
        if stub is not None:
            stub = next(c for c in self.table if c.name == name).load()
        return name, stub, rest

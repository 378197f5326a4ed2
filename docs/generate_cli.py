"""Write docs/reference/cli.md from the commands themselves: python docs/generate_cli.py"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from jobs.cli.main import app

OUT = Path(__file__).parent / "reference" / "cli.md"

INTRO = """\
# Commands

Every command of `un0`, with its arguments and options, as `un0 COMMAND --help` shows them. This
page is generated: `python docs/generate_cli.py`. The exit codes are in
[exit-codes.md](exit-codes.md), the environment variables in [environment.md](environment.md).
"""


def render() -> str:
    """The whole page, as Markdown."""
    root = typer.main.get_command(app)
    return "\n".join(
        [INTRO, *_sections(root, root.make_context("un0", [], resilient_parsing=True))]
    )


def commands(group: Any, context: Any, path: str = "un0") -> Iterator[tuple[str, Any, Any]]:
    """Path, command and context of every command that is not hidden, in the order of ``--help``."""
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])  # the lazy group's real one
        if command.hidden:
            continue
        inner = type(context)(command, info_name=name, parent=context)
        yield f"{path} {name}", command, inner
        if hasattr(command, "list_commands"):
            yield from commands(command, inner, f"{path} {name}")


def _sections(root: Any, context: Any) -> Iterator[str]:
    listed = list(commands(root, context))
    yield "| command | what it does |\n|---|---|"
    for path, command, _ in listed:
        yield f"| [`{path}`](#{path.replace(' ', '-')}) | {_cell(_first_line(command.help))} |"
    yield ""
    for path, command, inner in [("un0", root, context), *listed]:
        yield f"## {path}\n"
        yield f"    {' '.join([path, *_usage(command, inner)])}\n"
        yield f"{_paragraphs(command.help)}\n"
        yield from _parameters(command, inner)


def _usage(command: Any, context: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    for argument in command.get_params(context):
        if argument.param_type_name == "argument":
            name = argument.name.upper() + ("..." if argument.nargs != 1 else "")
            yield name if argument.required else f"[{name}]"
    if hasattr(command, "list_commands"):
        yield "COMMAND"


def _parameters(command: Any, context: Any) -> Iterator[str]:
    parameters = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option" and p.name != "help"]
    if arguments:
        yield "| argument | meaning |\n|---|---|"
        for argument in arguments:
            yield f"| `{argument.name.upper()}` | {_meaning(argument)} |"
        yield ""
    if options:
        yield "| option | value | meaning |\n|---|---|---|"
        for option in options:
            names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
            yield f"| {names} | {_cell(_value(option))} | {_meaning(option)} |"
        yield ""


def _meaning(parameter: Any) -> str:
    notes = [_paragraphs(parameter.help)]
    if parameter.required:
        notes.append("Required.")
    if parameter.multiple and "repeatable" not in notes[0]:
        notes.append("May be given several times.")
    default = parameter.default
    if isinstance(default, str | int | float | Path) and not isinstance(default, bool):
        notes.append(f"Default: `{default}`.")
    return _cell(" ".join(notes).strip())


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    return option.metavar or {int: "integer", float: "number", Path: "path"}.get(kind, "text")


def _first_line(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _paragraphs(text: str | None) -> str:
    """Help text without typer's marks; what is indented stays as it was written."""
    return re.sub(r"^\b$\n?", "", (text or "").replace("\b", ""), flags=re.MULTILINE).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")

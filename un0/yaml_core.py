"""A YAML 1.2 loader that takes plain words for no more than they look like.

Of the core schema: null, true and false, and numbers in decimal, with '_' between digits or not.
``no``, ``1:30``, ``0x10`` and ``2026-01-01`` stay text; ``010`` is ten.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.resolver import VersionedResolver

_DIGITS = "[0-9](?:_?[0-9])*"
_TAGS = (
    ("null", "~nN", r"~|null|Null|NULL"),
    ("null", "", r"$"),
    ("bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
    ("int", "-+0123456789", rf"[-+]?{_DIGITS}"),
    (
        "float",
        "-+.0123456789",
        rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]{{1,3}})?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    ),
)
_BY_FIRST: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _tag, _firsts, _pattern in _TAGS:
    for _first in _firsts or ("",):
        _BY_FIRST.setdefault(_first, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"))
        )


class _CoreSchema(VersionedResolver):
    @property
    def versioned_resolver(self) -> Any:
        return _BY_FIRST


def loader() -> YAML:
    """A loader of plain data, for one document."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    yaml.allow_duplicate_keys = False
    yaml.Resolver = _CoreSchema
    return yaml

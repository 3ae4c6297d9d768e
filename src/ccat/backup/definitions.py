"""Definitions as a file that people read, and that `ccat apply` takes."""

from collections.abc import Mapping
from typing import Any, Final

import yaml

_LIKE_NUMBERS: Final = tuple("+-.0123456789")
"""How text begins that somebody might take for a number."""


class _PlainDumper(yaml.SafeDumper):
    """Writes out what stands twice, and text that looks like a number in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if text.startswith(_LIKE_NUMBERS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlainDumper.add_representer(str, _text)


def as_yaml(definitions: Mapping[str, Any], *, heading: str) -> str:
    """The text of a file of definitions."""
    written = yaml.dump(definitions, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"# {heading}\n{written}"

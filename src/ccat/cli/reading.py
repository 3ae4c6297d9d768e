"""Reads a file of YAML as plain values, so that nothing in it becomes something else in silence."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from ccat_ops_db.definitions.parsing import InvalidDefinition

_TAG: Final = "tag:yaml.org,2002:"
_INT, _FLOAT = f"{_TAG}int", f"{_TAG}float"
_WHOLE: Final = re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*)$")
_DECIMAL: Final = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
"""Numbers as people mean them: of YAML 1.1 without sexagesimals, which look like 5:30, but with 1e-3."""
_OCTAL: Final = re.compile(r"[-+]?0[0-9_]+")
_MOST_REPEATED: Final = 100_000
"""Values that aliases may stand for; some 300 bytes of them can stand for more than any memory holds."""
_MOST_NESTED: Final = 100
"""Levels, through aliases too; whatever walks through them later does so recursively."""
_CLEARER: Final = {
    r".* but found another document": "another document begins here, write it to a file of its own",
    r"while scanning .* found character '\\t' .*": "a tab stands here, write spaces",
    r"while scanning .* found character '(.)' .*": r'nothing begins with "\1", write text in quotes',
    r"found undefined alias '(.*)'": r"`*\1` refers to `&\1`, which stands nowhere before, write text in quotes",
    r"found duplicate anchor '(.*)'; .*": r"anchor `&\1` stands twice",
    r"could not .* for the tag '(?:tag:yaml.org,2002:)?(.*)'": r"tag `\1` is not read, write text in quotes",
    r"while .* (?:'<stream end>'|end of stream)": "the file ends within a list, a mapping or a text, close it",
    r"mapping values are .*": "no key can stand here, indent keys alike, and write text with `: ` in quotes",
}
"""What PyYAML says where people go wrong, as patterns, and the same so that one knows what to do."""


def read_yaml(file: Path) -> Any:
    """Plain values that a file holds, None where it is empty; raises InvalidDefinition with the line."""
    written = file.read_bytes()
    try:
        return yaml.load(written.decode(), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise InvalidDefinition([_misspelt(file, error)]) from error
    except UnicodeDecodeError as error:
        place = _line_after(file, written[: error.start])
        raise InvalidDefinition([f"{place}: it is no text in UTF-8; save it as such."]) from error
    except yaml.reader.ReaderError as error:
        place = _line_after(file, written.decode()[: error.position].encode())
        problem = f"control character {error.character:#x} is not allowed, write an escape in double quotes"
        raise InvalidDefinition([f"{place}: not valid YAML: {problem}."]) from error
    except RecursionError as error:
        raise InvalidDefinition([f"{file}: it is nested too deeply."]) from error


def _line_after(file: Path, before: bytes) -> str:
    number = before.count(b"\n") + 1
    return f"{file}, line {number}"


def _misspelt(file: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    said = " ".join(filter(None, [error.context, error.problem]))
    found = ((re.fullmatch(pattern, said), clearer) for pattern, clearer in _CLEARER.items())
    clear = next((match.expand(clearer) for match, clearer in found if match), said)
    return f"{file}{place}: not valid YAML: {clear}."


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain values: moments stay text, and a key is text that stands once, or one would be lost in silence."""

    def get_single_node(self) -> yaml.Node | None:
        """The document, before anything is made of it; refuses what would be too much."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _weigh(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Mapping of a node; refuses a key that is repeated or no text, with its line."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == f"{_TAG}merge":
                _refuse(key_node, "`<<` is not read, write out what it stands for")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(key_node, f"key `{key}` is no text, write it in quotes")
            if key in seen:
                _refuse(key_node, f"key `{key}` stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
        """What a node stands for; refuses what is not of the type that it claims, with its line."""
        kind, shown = node.tag.rpartition(":")[2], f"`{str(node.value)[:40]}`"
        if node.tag == _INT and _OCTAL.fullmatch(str(node.value)):
            _refuse(node, f"{shown} begins with 0, as octal numbers do, write the number without, or text in quotes")
        try:
            if node.tag in (_INT, _FLOAT) and ":" in node.value:
                raise ValueError(node.value)  # noqa: TRY301 - said below, as of any other
            found = super().construct_object(node, deep=deep)
            if node.tag == _INT:
                str(found)  # of hexadecimal digits Python reads more than it writes
            return found  # noqa: TRY300 - what else there is, is refused
        except (ValueError, KeyError, OverflowError):
            _refuse(node, f"{shown} is no {kind}, write text in quotes")


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _refuse_kind(_: yaml.SafeLoader, node: yaml.Node) -> NoReturn:
    kind = node.tag.rpartition(":")[2]
    _refuse(node, f"`!!{kind}` is not read, write text in quotes, a list or a mapping")


def _weigh(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node stands for with all that its aliases repeat, and how deeply they are nested."""
    if id(node) in known:
        weight = known[id(node)]
        if weight is None:
            _refuse(node, "it contains itself")
        return weight
    known[id(node)] = None
    inner = [_weigh(one, known) for one in _inside(node)]
    values, levels = 1 + sum(one for one, _ in inner), 1 + max((level for _, level in inner), default=0)
    if values - len(known) > _MOST_REPEATED:
        _refuse(node, f"its aliases stand for more than {_MOST_REPEATED:,} values, write out what is meant")
    if levels > _MOST_NESTED:
        _refuse(node, f"it is nested more than {_MOST_NESTED} levels deep")
    known[id(node)] = values, levels
    return values, levels


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_INT, _FLOAT)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(_INT, _WHOLE, list("-+0123456789"))
_PlainLoader.add_implicit_resolver(_FLOAT, _DECIMAL, list("-+.0123456789"))
_PlainLoader.add_constructor(f"{_TAG}timestamp", lambda _, moment: moment.value)
for _kind in ("binary", "set", "omap", "pairs"):
    _PlainLoader.add_constructor(f"{_TAG}{_kind}", _refuse_kind)

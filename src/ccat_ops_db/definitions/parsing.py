"""From a file to checked definitions, or to all that is wrong with it. Pure."""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from graphlib import CycleError
from typing import Any, Final

from packaging.version import Version
from pydantic import BaseModel, ValidationError

from ccat_ops_db.definitions.document import Definitions, Grouping, Pipeline, in_order
from ccat_ops_db.definitions.steps import INPUTS
from ccat_ops_db.errors import CcatError
from ccat_ops_db.grouping.checking import Catalogue
from ccat_ops_db.grouping.presets import Preset, check_written
from ccat_ops_db.grouping.rules import InvalidRule
from ccat_ops_db.naming import list_problems, nearest, read_as


class InvalidDefinition(CcatError):
    """A definition file that cannot be applied; nothing of it was."""

    code = "invalid_definition"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join([*problems, "Nothing was applied."]))
        self.problems = tuple(problems)


def parse_definitions(
    document: Any, *, catalogue: Catalogue, dimensions: Sequence[str], presets: Mapping[str, Preset]
) -> Definitions:
    """Checked definitions, in which presets are filled in.

    Raises InvalidDefinition with all problems at once, each with its place in the file.
    """
    with suppress(RecursionError):  # what contains itself is refused below, where it is not allowed to be at all
        if unwritable := [f"{place}: it has a character that cannot be kept." for place in _unwritable(document, ())]:
            raise InvalidDefinition(unwritable)
    try:
        definitions = Definitions.model_validate({} if document is None else document)
    except ValidationError as error:
        raise InvalidDefinition([_problem(detail) for detail in error.errors()]) from error
    groupings, problems = _with_rules_of(presets, definitions.groupings, catalogue)
    definitions = definitions.model_copy(update={"groupings": groupings})
    problems += _repeated_names(definitions)
    for index, pipeline in enumerate(definitions.pipelines):
        problems += _pipeline_problems(pipeline, f"pipelines[{index}]", dimensions)
    if problems:
        raise InvalidDefinition(problems)
    return definitions


_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of surrogate pairs: no database keeps them."""


def _unwritable(value: Any, place: tuple[str | int, ...]) -> Iterator[str]:
    """Places of text that cannot be kept."""
    if isinstance(value, str) and _UNWRITABLE.search(value):
        yield _place(place) or "file"
    elif isinstance(value, dict):
        yield from _unwritable(list(value), place)
        for key, inner in value.items():
            yield from _unwritable(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unwritable(inner, (*place, index))


_SENTENCES: Final = {
    "missing": "it is missing",
    "int_type": "it must be a whole number, without quotes",
    "tuple_type": "it must be a list",
    "dict_type": "it must be a mapping",
    "model_type": "it must be a mapping",
    "bool_type": "{said} is neither true nor false: write `true` or `false`, without quotes",
    "string_too_long": "it is longer than {max_length} characters",
}
"""What Pydantic says in terms of Python, in those of YAML."""


def _problem(detail: Any) -> str:
    place = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        *parent, key = detail["loc"]
        return f"{_place(parent) or 'file'}: unknown key `{key}`.{nearest(str(key), _keys_at(parent))}"
    message = _sentence(detail)
    stop = "" if message.endswith((".", "?")) else "."
    return f"{place or 'file'}: {message}{stop}"


def _sentence(detail: Any) -> str:
    kind, written = detail["type"], detail["input"]
    if kind == "string_type":
        return _no_text(written)
    if kind == "float_type":
        return _no_number(written, is_angle=str(detail["loc"][-1]).endswith("_deg"))
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(said=_said(written), **detail.get("ctx", {}))
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"


def _no_text(written: object) -> str:
    if isinstance(written, bool):
        return read_as(written)
    if isinstance(written, int | float):
        return f"{written!s:.40} is a number here; write it in quotes"
    if written is None:
        return "`null` is no text: give some, in quotes where it is the word itself"
    return f"it must be text, not {_said(written)}"


def _no_number(written: object, *, is_angle: bool) -> str:
    if isinstance(written, str) and _NUMBER.fullmatch(written):
        return f"`{written:.40}` is text here; write it without quotes"
    meant = "degrees as a decimal number, such as 82.5" if is_angle else "a decimal number, such as 0.5"
    return f"{_said(written)} is no number: give {meant}"


_NUMBER: Final = re.compile(r"[-+]?[0-9]*\.?[0-9]+")


def _said(written: object) -> str:
    """A value as it stands in the file, more or less."""
    if isinstance(written, dict | list):
        return "a mapping" if isinstance(written, dict) else "a list"
    text = "null" if written is None else str(written)
    return f"`{text.lower() if isinstance(written, bool) else text:.40}`"


def _place(parts: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _keys_at(parts: Sequence[str | int]) -> Sequence[str]:
    """Keys that a mapping at this place of the file may have."""
    model: type[BaseModel] = Definitions
    for part in parts:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))[0]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _repeated_names(definitions: Definitions) -> Iterator[str]:
    for section in ("sources", "software", "configs", "groupings", "pipelines"):
        yield from _repeated((f"{section}[{i}].name", one.name) for i, one in enumerate(getattr(definitions, section)))
    programs = list(enumerate(definitions.observing_programs))
    yield from _repeated((f"observing_programs[{i}].short_name", one.short_name) for i, one in programs)
    yield from _repeated(
        (f"observing_programs[{i}].observations[{j}].name", observation.name)
        for i, one in programs
        for j, observation in enumerate(one.observations)
    )
    for i, software in enumerate(definitions.software):
        versions = enumerate(software.versions)
        yield from _repeated((f"software[{i}].versions[{j}].version", Version(one.version)) for j, one in versions)


def _repeated(names: Iterable[tuple[str, Hashable]]) -> Iterator[str]:
    seen = set()
    for place, name in names:
        if name in seen:
            yield f"{place}: `{name}` is defined twice."
        seen.add(name)


def _with_rules_of(
    presets: Mapping[str, Preset], groupings: Iterable[Grouping], catalogue: Catalogue
) -> tuple[tuple[Grouping, ...], list[str]]:
    """The groupings with their presets filled in, and what is wrong with their rules."""
    filled, problems = [], []
    for index, grouping in enumerate(groupings):
        where = f"groupings[{index}].rules"
        try:
            rules, _ = check_written(grouping.rules, catalogue, presets, where=where)
            filled.append(grouping.model_copy(update={"rules": tuple(rules)}))
        except InvalidRule as error:
            problems.append(str(error))
    return tuple(filled), problems


def _pipeline_problems(pipeline: Pipeline, where: str, dimensions: Sequence[str]) -> Iterator[str]:
    keys = [step.key for step in pipeline.steps]
    for index, step in enumerate(pipeline.steps):
        place = f"{where}.steps[{index}]"
        if step.key in keys[:index]:
            yield f"{place}.key: `{step.key}` is used twice in pipeline `{pipeline.name}`."
        yield from list_problems(step.group_by, f"{place}.group_by", known=dimensions, what="dimension")
        yield from list_problems(step.depends_on, f"{place}.depends_on", known=keys, what="step")
        yield from list_problems(step.inputs or (), f"{place}.inputs", known=INPUTS, what="input")
        yield from _repeated((f"{place}.auxiliary[{i}].name", rule.name) for i, rule in enumerate(step.auxiliary))
        for i, rule in enumerate(step.auxiliary):
            yield from list_problems(rule.same, f"{place}.auxiliary[{i}].same", known=dimensions, what="dimension")
    try:
        in_order(pipeline)
    except CycleError as error:
        yield f"{where}.steps: the steps depend on each other in a circle: {' → '.join(error.args[1])}."

"""What a trial changes: parameters of a config, given as `key=value`, and how long its products are kept."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Any, Final, NoReturn

from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import nearest

_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST: Final = timedelta(days=366)
_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of surrogate pairs: no database keeps them."""


class InvalidSetting(CcatError):
    """A parameter of a trial cannot be set like this."""

    code = "invalid_setting"

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"--set {key}: {problem} No run was created.")


class InvalidKeep(CcatError):
    """Products cannot be kept for so long."""

    code = "invalid_keep"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"--keep {text}: hours, days or weeks are written `36h`, `14d` or `2w`, from one hour to 366 days. "
            "No run was created."
        )


def parse_keep(text: str) -> timedelta:
    """How long products are kept; raises InvalidKeep."""
    found = re.fullmatch(r"([1-9]\d{0,4})([hdw])", text)
    kept = int(found[1]) * _UNITS[found[2]] if found else timedelta()
    if not timedelta() < kept <= _LONGEST:
        raise InvalidKeep(text)
    return kept


def with_settings(parameters: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Parameters of a config with some of them set anew, each as `key=value`; `a.b` is `b` within `a`.

    A value is JSON, else text. Where the config has any parameters, only those that it has can be set. Raises
    InvalidSetting.
    """
    changed, keys = deepcopy(dict(parameters)), set()
    for setting in settings:
        key, value = _parse(setting)
        if key in keys:
            raise InvalidSetting(key, "it is set twice.")
        keys.add(key)
        _put(changed, key, value) if not parameters else _replace(changed, key, value)
    return changed


def _parse(setting: str) -> tuple[str, Any]:
    key, separator, text = setting.partition("=")
    if not separator or not all(key.split(".")):
        raise InvalidSetting(setting, "a setting is `key=value`, such as `gain=1.5` or `baseline.order=3`.")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = text
    if _UNWRITABLE.search(key + json.dumps(value, ensure_ascii=False)) or "\\u0000" in json.dumps(value):
        raise InvalidSetting(key, "it has a character that cannot be kept.")
    return key, value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and the infinities are no JSON


def _replace(parameters: dict[str, Any], key: str, value: Any) -> None:
    """Set a parameter that is there."""
    places = dict(_places(parameters))
    if key not in places:
        raise InvalidSetting(key, f"the config of the step has no such parameter.{nearest(key, list(places))}")
    inside, name = places[key]
    inside[name] = value


def _places(parameters: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """Every parameter by its dotted name: the mapping where it stands, and its name there."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from _places(value, f"{prefix}{name}.")
        yield f"{prefix}{name}", (parameters, name)


def _put(parameters: dict[str, Any], key: str, value: Any) -> None:
    """Set a parameter, whether it is there or not."""
    name, dot, rest = key.partition(".")
    if not dot:
        parameters[name] = value
        return
    inside = parameters.setdefault(name, {})
    if not isinstance(inside, dict):
        raise InvalidSetting(key, f"`{name}` is set to a value, and holds no other parameters.")
    _put(inside, rest, value)

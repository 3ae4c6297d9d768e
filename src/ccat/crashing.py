"""Places where a process may be told to die, generated from the code: every commit, and every call outside.

Only a process that is given CCAT_CRASH_AT imports this module. It compiles the functions around its point anew, with a
look at the point in them; the names in the list and in the running code come from the same walk through the source.
"""

import ast
import os
import pkgutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, TracebackType
from typing import Any, Final

from ccat_ops_db.naming import nearest
from ccat_service.settings import SettingsError

VARIABLE: Final = "CCAT_CRASH_AT"
"""Setting that names a point, and after `#` how often it is reached before the process dies there; else once."""
MOMENTS: Final = ("before", "after")

_ROOTS: Final = (
    *("ccat_workflow_manager", "ccat_service.outbox", "ccat_service.health", "ccat_service.spaces"),
    *("ccat.watch", "ccat.processes", "ccat.wiring"),
)
"""Where the places are. Every command commits in `ccat.wiring.transaction`."""
_ELSEWHERE: Final = (
    *("ccat_workflow_manager.hpc.fake", "ccat_workflow_manager.hpc.local.cgroups"),
    *("ccat.processes.transfer_worker", "ccat_workflow_manager.contract"),
)
"""What is not there in production, such as the test of the contract, of which nothing is to outlive its command; and
what few hosts have: kept by the kernel for as long as it has processes. And data transfer."""
_TRANSACTIONS: Final = frozenset({"transaction", "in_transaction"})
_ON_DISK: Final = frozenset(
    {
        *("mkdir", "rmdir", "rename", "symlink_to", "hardlink_to", "unlink", "touch", "chmod", "write_text"),
        *("write_bytes", "fsync", "fchmod", "flock", "rmtree", "copyfile", "kill", "killpg", "posix_spawn"),
        "disk_usage",
    }
)
_DURABLE: Final = frozenset({"write_read_only", "sync_directory"})
_BACKENDS: Final = frozenset({"backend", "backends", "backend_of"})
_SUBPROCESS: Final = frozenset({"run", "Popen"})
_GIVEN: Final = frozenset(
    {("pipe", "execute"), ("mailbox", "deliver"), ("process", "communicate"), ("build_opener", "open")}
)
"""Who is given something, and by which call."""
_NOT_ASKED: Final = frozenset({"pipeline", "register_script"})
_COMMIT, _CALL = "__ccat_commit__", "__ccat_call__"


class NoSuchCrashPoint(SettingsError):
    """A point that the code does not have."""

    def __init__(self, point: str, *, known: Collection[str]) -> None:
        hint = f"{nearest(point, known)} `python -m tools.crash_points --list` lists them."
        super().__init__(VARIABLE, f"no such crash point: {point}.{hint}")


@dataclass(frozen=True)
class Place:
    """A commit or a call outside."""

    module: str
    function: str
    """Qualified, within its module."""
    what: str
    """`commit`, or what is called."""
    told: str
    """First line of the docstring of the function; where it has none, of what is around it."""

    @property
    def name(self) -> str:
        """Names it for ever, as long as the code around it is called so."""
        return f"{self.module}.{self.function}:{self.what}"

    @property
    def points(self) -> tuple[str, ...]:
        """The moments around it."""
        return tuple(f"{self.name}:{moment}" for moment in MOMENTS)


@cache
def places() -> Sequence[Place]:
    """Every place in the code, in the order of the code."""
    found = (place for module in _modules() for place in _walk(module).found)
    return tuple(place for place in found if not place.name.startswith(_ELSEWHERE))


def points() -> list[str]:
    """Every point at which a process may be told to die."""
    return [point for place in places() for point in place.points]


def arm_from_environment() -> None:
    """Let this process die where CCAT_CRASH_AT says; raises NoSuchCrashPoint."""
    point, _, count = os.environ[VARIABLE].partition("#")
    if point not in points() or not (count or "1").isdecimal():
        raise NoSuchCrashPoint(os.environ[VARIABLE], known=points())
    left = int(count or "1")

    def die(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if reached == point and left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    arm({place.module for place in places() if point in place.points}, die)


def arm(modules: Iterable[str], reached: Callable[[str], object]) -> Callable[[], None]:
    """Have the functions of modules tell each point as it is reached, until what is returned is called."""
    before: list[tuple[FunctionType, CodeType]] = []
    for name in modules:
        module, tree = import_module(name), _walk(name).tree
        module.__dict__[_COMMIT] = lambda place, manager: _Commit(place, manager, reached)
        module.__dict__[_CALL] = lambda place, function: _around(place, function, reached)
        compiled = {code.co_qualname: code for code in _codes(compile(tree, module.__file__ or name, "exec"))}
        for function in _functions(vars(module).values(), name):
            if function.__code__.co_qualname in compiled:
                before.append((function, function.__code__))
                function.__code__ = compiled[function.__code__.co_qualname]
    return partial(_disarm, before)


def _disarm(before: Iterable[tuple[FunctionType, CodeType]]) -> None:
    for function, code in before:
        function.__code__ = code


@dataclass
class _Walk(ast.NodeTransformer):
    """Finds the places of a module, and puts a look at each into its tree."""

    module: str
    tree: ast.Module
    _told: list[str]
    found: list[Place] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._inside(node, before=[*self._names, node.name])

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, before=[*self._names, node.name])

    def visit_With(self, node: ast.With) -> ast.AST:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _name(call.func) in _TRANSACTIONS:
                place = self._note("commit")
                call.args = [self.visit(one) for one in call.args]
                item.context_expr = ast.Call(ast.Name(_COMMIT, ast.Load()), [ast.Constant(place), call], [])
            else:
                item.context_expr = self.visit(call)
        node.body = [self.visit(one) for one in node.body]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        what = _outside(node)
        place = self._note(what) if what and self._names else None
        self.generic_visit(node)
        if place:
            node.func = ast.Call(ast.Name(_CALL, ast.Load()), [ast.Constant(place), node.func], [])
        return node

    def _inside(self, node: ast.FunctionDef | ast.ClassDef, *, before: list[str]) -> ast.AST:
        names, self._names = self._names, before
        self._told.append((ast.get_docstring(node) or self._told[-1]).partition("\n")[0])
        self.generic_visit(node)
        self._told.pop()
        self._names = names
        return node

    def _note(self, what: str) -> str:
        function = ".".join(self._names)
        self._counts[f"{function}:{what}"] += 1
        number = self._counts[f"{function}:{what}"]
        place = Place(self.module, function, what if number == 1 else f"{what}:{number}", self._told[-1])
        self.found.append(place)
        return place.name


def _walk(module: str) -> _Walk:
    tree = _tree(module)
    told = ast.get_docstring(tree) or ast.get_docstring(_tree(module.rpartition(".")[0] or module)) or ""
    walk = _Walk(module, tree, [told])
    walk.visit(tree)
    ast.fix_missing_locations(tree)
    return walk


def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module).read_bytes())


def _outside(node: ast.Call) -> str | None:
    """What a call reaches outside of this process, if it does."""
    called = _name(node.func)
    if called in _DURABLE or (called == "open" and _writes(node)):
        return called
    if called == "_script":
        return "redis.script"
    if not isinstance(node.func, ast.Attribute):
        return "in_transaction" if called in _TRANSACTIONS else None
    owner = _name(node.func.value).strip("_")
    is_outside = (
        owner in _BACKENDS
        or (owner == "redis" and called not in _NOT_ASKED)
        or (owner, called) in _GIVEN
        or (owner == "subprocess" and called in _SUBPROCESS)
    )
    if is_outside:
        return f"{'backend' if owner in _BACKENDS else owner}.{called}"
    is_on_disk = called in _ON_DISK or (called == "replace" and len(node.args) == 1)
    return called if is_on_disk else None


def _writes(opened: ast.Call) -> bool:
    modes = [one.value for one in opened.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(mode[:1] in {"w", "x", "a"} for mode in modes)


def _name(node: ast.expr) -> str:
    """The last word of `a.b.name`, `name`, `a.name[key]`, `a.name(key)`."""
    match node:
        case ast.Attribute():
            return node.attr
        case ast.Name():
            return node.id
        case ast.Subscript():
            return _name(node.value)
        case ast.Call():
            return _name(node.func)
        case _:
            return ""


def _modules() -> Iterator[str]:
    for root in _ROOTS:
        spec = find_spec(root)
        yield root
        if spec and spec.submodule_search_locations:
            yield from sorted(one.name for one in pkgutil.walk_packages(spec.submodule_search_locations, f"{root}."))


def _source(module: str) -> Path:
    spec = find_spec(module)
    return Path((spec and spec.origin) or sys.executable)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions(values: Iterable[Any], module: str) -> Iterator[FunctionType]:
    """Every function of a module, those of its classes and below decorators included."""
    for value in values:
        inner = getattr(value, "__func__", getattr(value, "fget", getattr(value, "__wrapped__", value)))
        if isinstance(inner, FunctionType) and inner.__module__ == module:
            yield inner
        elif isinstance(inner, type) and inner.__module__ == module:
            yield from _functions(list(vars(inner).values()), module)


def _around(place: str, function: Callable[..., Any], reached: Callable[[str], object]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        reached(f"{place}:before")
        found = function(*arguments, **options)
        reached(f"{place}:after")
        return found

    return call


class _Commit:
    """A transaction that tells its end; one that is rolled back has none."""

    def __init__(self, place: str, manager: AbstractContextManager[Any], reached: Callable[[str], object]) -> None:
        self._place, self._manager, self._reached = place, manager, reached

    def __enter__(self) -> Any:
        return self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if kind is None:
            self._reached(f"{self._place}:before")
        swallowed = self._manager.__exit__(kind, error, traceback)
        if kind is None:
            self._reached(f"{self._place}:after")
        return swallowed

"""The objects of the cluster, each with a version, and lists of them in pages."""

import base64
import copy
import itertools
import json
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.kubernetes_api.statuses import already_exists, bad_request, expired, not_found

Object = dict[str, Any]
_RANDOM = "bcdfghjklmnpqrstvwxz2456789"
"""Characters of names that the cluster makes, of which no words come."""


def moment(at: datetime | None = None) -> str:
    """A time as the API tells it, in whole seconds."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def random_suffix() -> str:
    return "".join(secrets.choice(_RANDOM) for _ in range(5))


@dataclass
class State:
    """All objects by resource and name; one namespace is all that the tests need beside a missing one."""

    namespace: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    _objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {"jobs": {}, "pods": {}, "nodes": {}})
    _versions: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1000))
    _snapshots: dict[str, list[Object]] = field(default_factory=dict)
    version: int = 1000

    def add(self, resource: str, value: Object) -> Object:
        """Store a new object. Raises Refusal."""
        name = value["metadata"]["name"]
        with self.lock:
            other = self._objects[resource].get(name)
            if other is not None:
                raise already_exists(resource, name, is_ending="deletionTimestamp" in other["metadata"])
            given = {"uid": str(uuid.uuid4()), "creationTimestamp": moment()}
            scope = {} if resource == "nodes" else {"namespace": self.namespace}
            stored = {**value, "metadata": {**value["metadata"], **given, **scope}}
            self._objects[resource][name] = self._versioned(stored)
            return copy.deepcopy(stored)

    def get(self, resource: str, name: str) -> Object:
        """A copy of an object. Raises Refusal."""
        with self.lock:
            if name not in self._objects[resource]:
                raise not_found(resource, name)
            return copy.deepcopy(self._objects[resource][name])

    def all(self, resource: str) -> list[Object]:
        """The objects themselves, for those who hold the lock, to be looked at only."""
        return list(self._objects[resource].values())

    @contextmanager
    def changed(self, resource: str, name: str) -> Iterator[Object]:
        """An object to be changed."""
        with self.lock:
            value = self._objects[resource].get(name)
            if value is None:
                raise not_found(resource, name)
            yield value
            self._versioned(value)

    def remove(self, resource: str, name: str) -> None:
        with self.lock:
            self._objects[resource].pop(name, None)
            self.version = next(self._versions)

    def page(self, resource: str, selector: str, *, limit: int, rest: str) -> tuple[list[Object], Object]:
        """A page of a list, which shows one moment in all its pages, and what is said about it. Raises Refusal."""
        with self.lock:
            if rest:
                key, start = self._position(rest)
            else:
                key, start = f"{self.version}-{secrets.token_hex(4)}", 0
                wanted = selection(selector)
                found = [one for one in self._objects[resource].values() if wanted(one["metadata"].get("labels") or {})]
                found.sort(key=lambda one: str(one["metadata"]["name"]))
                self._snapshots[key] = copy.deepcopy(found) if limit and len(found) > limit else found
            items = self._snapshots[key]
            page = items[start : start + limit] if limit else items[start:]
            about: Object = {"resourceVersion": key.split("-")[0]}
            left = len(items) - start - len(page)
            if left:
                about["continue"] = _token({"v": key, "start": start + len(page)})
                if not selector:
                    about["remainingItemCount"] = left
            else:
                del self._snapshots[key]
            return copy.deepcopy(page), about

    def forget_snapshots(self) -> None:
        """Lists that were begun cannot be read on, as after some minutes."""
        with self.lock:
            self._snapshots.clear()

    def _position(self, rest: str) -> tuple[str, int]:
        try:
            told = json.loads(base64.urlsafe_b64decode(rest))
            key, start = str(told["v"]), int(told["start"])
        except (ValueError, KeyError):
            raise bad_request("continue key is not valid") from None
        if key not in self._snapshots:
            raise expired()
        return key, start

    def _versioned(self, value: Object) -> Object:
        self.version = next(self._versions)
        value["metadata"]["resourceVersion"] = str(self.version)
        return value


def selection(selector: str) -> Callable[[Mapping[str, str]], bool]:
    """What a label selector of equalities chooses. Raises Refusal."""
    wanted: dict[str, str] = {}
    for part in (part.strip() for part in selector.split(",") if part.strip()):
        key, is_equal, value = part.replace("==", "=").partition("=")
        if not is_equal or key.endswith("!") or " " in part:
            raise bad_request(f"unable to parse requirement, or none that this server knows: {part}")
        wanted[key] = value
    return lambda labels: all(labels.get(key) == value for key, value in wanted.items())


def condition(kind: str, *, reason: str = "", message: str = "", status: str = "True") -> Object:
    """A condition of an object, as it stands in its status."""
    now = moment()
    more = {name: value for name, value in (("reason", reason), ("message", message)) if value}
    return {"type": kind, "status": status, "lastTransitionTime": now, **more}


def set_condition(status: Object, new: Object) -> None:
    """Put a condition in the place of that of its kind; its time is that of its last change."""
    conditions = status.setdefault("conditions", [])
    for number, old in enumerate(conditions):
        if old["type"] == new["type"]:
            if old["status"] == new["status"]:
                new = {**new, "lastTransitionTime": old["lastTransitionTime"]}
            conditions[number] = new
            return
    conditions.append(new)


def has_condition(value: Object, *kinds: str) -> bool:
    return any(one["type"] in kinds and one["status"] == "True" for one in value["status"].get("conditions", []))


def _token(value: Object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()

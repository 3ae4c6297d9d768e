"""The Status objects by which the API says no, as its published conventions describe them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROUPS = {"jobs": "batch", "pods": "", "nodes": "", "namespaces": ""}
KINDS = {"jobs": "Job", "pods": "Pod", "nodes": "Node"}


@dataclass(frozen=True)
class Cause:
    """What is wrong with one field."""

    reason: str
    field: str
    message: str


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        } | ({"details": dict(details)} if details else {})


def not_found(resource: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f"{_full(resource)} {_quoted(name)} not found", details=_about(resource, name))


def already_exists(resource: str, name: str, *, is_ending: bool = False) -> Refusal:
    message = f"{_full(resource)} {_quoted(name)} already exists"
    told = f"object is being deleted: {message}" if is_ending else message
    return Refusal(409, "AlreadyExists", told, details=_about(resource, name))


def conflict(resource: str, name: str) -> Refusal:
    message = f"Operation cannot be fulfilled on {_full(resource)} {_quoted(name)}: the object has been modified"
    return Refusal(409, "Conflict", message, details=_about(resource, name))


def invalid(resource: str, name: str, causes: Sequence[Cause]) -> Refusal:
    kind, group = KINDS[resource], GROUPS[resource]
    told = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    message = f"{kind}.{group} {_quoted(name)} is invalid: {listed}"
    details = {"name": name, "group": group, "kind": kind, "causes": [vars(cause) for cause in causes]}
    return Refusal(422, "Invalid", message, details=details)


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, name: str, why: str) -> Refusal:
    named = f" {_quoted(name)}" if name else ""
    message = f"{_full(resource)}{named} is forbidden: {why}"
    return Refusal(403, "Forbidden", message, details=_about(resource, name))


def expired() -> Refusal:
    return Refusal(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")


def too_many_requests() -> Refusal:
    message = "Too many requests, please try again later."
    return Refusal(429, "TooManyRequests", message, details={"retryAfterSeconds": 1})


def internal_error() -> Refusal:
    message = "Internal error occurred: etcdserver: leader changed"
    return Refusal(500, "InternalError", message, details={"causes": [{"message": "etcdserver: leader changed"}]})


def success(resource: str, name: str, uid: str) -> dict[str, Any]:
    details = {**_about(resource, name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _about(resource: str, name: str) -> dict[str, str]:
    group = GROUPS[resource]
    return ({"name": name} if name else {}) | ({"group": group} if group else {}) | {"kind": resource}


def _full(resource: str) -> str:
    return f"{resource}.{GROUPS[resource]}" if GROUPS[resource] else resource


def _quoted(name: str) -> str:
    return f'"{name}"'

"""What answers of the API that are none mean for us: decided by status and reason, as the prose differs by version."""

import json
from dataclasses import dataclass
from typing import Any, Final

from ccat_workflow_manager.hpc.base import BackendUnavailable

_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_GONE: Final = 410
_TOO_LARGE: Final = 413
_INVALID: Final = 422
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500
_NEVER: Final = frozenset({_BAD_REQUEST, _TOO_LARGE, _INVALID})
_LONGEST: Final = 300
_REMEDIES: Final = {
    _UNAUTHORIZED: "it does not know who we are: renew the token or the certificate of the account",
    _FORBIDDEN: "a quota of the namespace is used up, or our account lacks a right (docs/operating.md lists them)",
    _NOT_FOUND: "see that the namespace exists, and that it is the one that is meant",
    _TOO_MANY: "it asks us to slow down",
}


@dataclass(frozen=True)
class Answer:
    """An answer of the API that is an error: its status, and what the Status object in it says."""

    status: int
    reason: str = ""
    message: str = ""
    kind: str = ""
    """What it is about, such as `jobs`."""

    @classmethod
    def of(cls, status: int, body: str) -> "Answer":
        """Read an answer; one without a Status object, as a proxy before the API makes it, is told as it is."""
        try:
            said: Any = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.get("kind") != "Status":
            return cls(status, message=" ".join(body.split())[:_LONGEST])
        details = said.get("details")
        kind = str(details.get("kind") or "") if isinstance(details, dict) else ""
        return cls(status, str(said.get("reason") or ""), message=str(said.get("message") or ""), kind=kind)

    @property
    def is_known_already(self) -> bool:
        """Whether there is an object of that name. A 409 may also say that somebody changed one meanwhile."""
        return self.status == _CONFLICT and self.reason == "AlreadyExists"

    @property
    def is_missing(self) -> bool:
        """Whether the object is not there. A 404 may also say that a namespace, or a whole API, is not."""
        return self.status == _NOT_FOUND and self.reason == "NotFound" and self.kind != "namespaces"

    @property
    def has_expired(self) -> bool:
        """Whether the rest of a list cannot be had any more."""
        return self.status == _GONE

    @property
    def is_forbidden(self) -> bool:
        """Whether our account has no right to what it asked for."""
        return self.status == _FORBIDDEN

    @property
    def is_no_log_yet(self) -> bool:
        """Whether a pod has no log: it is gone, or its container has not started."""
        return self.is_missing or self.status == _BAD_REQUEST

    @property
    def is_for_ever(self) -> bool:
        """Whether the same would be refused again. A 403 may pass, as it also says that a quota is used up."""
        return self.status in _NEVER


class Declined(BackendUnavailable):
    """The API answers, and does not do what it was asked for; unless that is understood, nothing is known."""

    def __init__(self, what: str, answer: Answer) -> None:
        said = answer.message or answer.reason or "no reason given"
        remedy = _REMEDIES.get(answer.status)
        if remedy is None and answer.status >= _SERVER_ERRORS:
            remedy = "it is in trouble itself"
        problem = f"its API answers {answer.status} when asked to {what}: {said}"
        super().__init__("kubernetes", f"{problem}; {remedy}" if remedy else problem)
        self.answer = answer

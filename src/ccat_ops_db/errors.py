from typing import ClassVar


class CcatError(Exception):
    """Base of every error that is raised on purpose; `str()` is the sentence a person reads.

    A subclass takes data and builds the sentence itself: what was wrong, where, and what to do next.
    """

    code: ClassVar[str] = "error"
    """Stable identifier for programs."""
    transient: ClassVar[bool] = False
    """True where trying the same again later may succeed; queue tasks retry exactly these."""

"""What goes wrong with a request, in the form in which OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

from guards.printable import printable

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is refused, or that failed.

    Attributes:
        status: of HTTP.
        message: for who sent it.
        param: the field at fault; empty where it is none.
        code: a short name that programs compare.
    """

    def __init__(self, status: int, message: str, param: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, printable(message, 600), param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the reply."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param or None, "code": self.code or None}
        }

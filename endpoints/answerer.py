"""What can be asked: a model behind an endpoint, or one that runs here; what it says is kept as it was said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from endpoints.budget import Budget
from endpoints.reading import Fault, Reply, beginning, read_reply

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Heard(Generic[Asked]):
    """What became of a request.

    Attributes:
        request: that was put.
        status: HTTP's, or 200 from a local model.
        body: the reply's bytes; None where none came.
        trouble: why none came.
    """

    request: Asked
    status: int
    body: bytes | None
    trouble: str = ""


class UnusableError(ValueError):
    """Nobody answers as things are configured: a wrong key, model or address, a folder that holds no model."""


class Answerer(ABC, Generic[Asked]):
    """Answers requests; what it answers is a function of itself and the request alone, as far as it can be."""

    give_up_after: int = 1
    """Requests in a row without a usable reply after which the rest is not asked."""
    names: Sequence[str] = ()
    """Models that may answer; empty believes any."""
    budget: Budget | None = None
    """What an invocation may spend; None counts nothing."""
    never_kept: Sequence[Fault] = ()
    """Faults of replies that are never kept: their requests stay unanswered, and the next command asks again."""

    needs_proof: bool = False
    """Whether refusals are kept only of a model that is known to answer others, since they count against it."""
    is_proven: bool = False
    """Whether it has answered well since this program began."""

    @abstractmethod
    def key(self, request: Asked) -> str:
        """SHA-256 of all that the reply depends on: equal requests have equal replies."""

    @abstractmethod
    def note(self, request: Asked) -> Mapping[str, Any]:
        """Who is asked what, as JSON, for readers of the reply's file; holds no secret."""

    @abstractmethod
    def answer(self, requests: Sequence[Asked], take: Callable[[Heard[Asked] | None], bool]) -> None:
        """Answer requests, in any order.

        Args:
            requests: what is asked.
            take: receives every reply as soon as it is there, and None now and then while none is; returns False to
                stop asking. Replies that are under way then, or when an error comes, are still handed over.

        Raises:
            UnusableError: no request can be answered.
        """

    @abstractmethod
    def most_tokens(self, request: Asked) -> int:
        """Upper bound of what one attempt costs in tokens."""

    def attempts(self, request: Asked) -> int:
        """Upper bound of what a request costs in attempts."""
        return 1

    def trouble_with(self, heard: Heard[Asked]) -> str:
        """What is wrong with a reply that may be an outage, in words."""
        body = heard.body or b""
        reply = self.read(heard.status, body)
        if reply.fault == "wrong_model":
            return (
                f"the server answers as model {reply.model!r:.200}, asked was {' or '.join(map(repr, self.names))}; if "
                f"they are the same, say served_as: [{reply.model!r:.200}], else put right `model` or the server"
            )
        return f"HTTP {heard.status} {beginning(body)!r}"

    def read(self, status: int, body: bytes) -> Reply:
        """A reply of this model, read."""
        return read_reply(status, body, self.names)

"""What a judge is: it is shown a message with pictures, and its reply is kept as it was said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from datamodules.batch import ImageSource
from endpoints.budget import Price
from judging.cases import Case
from judging.messages import MODES, Mode


@dataclass(frozen=True)
class Request:
    """One message to a judge.

    Attributes:
        case_id: whom it is about, `<organ>/<question_id>`.
        key: hash of all that the reply may depend on: judge, message, pictures.
        prompt: the whole user turn, see `judging.messages`.
        pictures: shown before it, in order.
        answers: that the message shows, in its order; heuristics look at these alone.
        question: that they answer, as it stands in the message.
    """

    case_id: str
    key: str
    prompt: str
    pictures: tuple[ImageSource, ...]
    answers: tuple[str, ...]
    question: str


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: as it came.
        truncated: it reached the limit of its length.
        prompt_tokens: of what was asked, as an endpoint counts them; 0 where the judge runs here.
        completion_tokens: of the reply, likewise.
    """

    text: str
    truncated: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class JudgeError(ValueError):
    """The judge cannot be used as it is configured, or stopped answering."""


class Judge(ABC):
    """Answers messages; a reply is a function of the judge's identity and the request alone, as far as it can be."""

    modes: ClassVar[Sequence[Mode]] = MODES
    """Modes that it can be asked in."""
    sees: ClassVar[bool] = True
    """Whether it looks at pictures; then each must open before the first request."""
    price: Price = Price()
    """What its tokens cost; nothing where it runs here."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that replies depend on besides the request, as JSON; holds no secret."""

    def study(self, cases: Sequence[Case]) -> None:  # noqa: B027, most judges have nothing to do
        """See all cases before the first request: only for a baseline that may know the truth."""

    def cost(self, requests: Sequence[Request]) -> str:
        """What replies to requests would cost at most, in words; nobody is asked. Empty where nobody is paid."""
        return ""

    @abstractmethod
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer requests, in any order, each as soon as its reply is there.

        A request that gets no reply is left out; the same command asks for it again.

        Raises:
            JudgeError: no further request can be answered.
        """

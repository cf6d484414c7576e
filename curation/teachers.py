"""What a teacher is: it is put a question under an instruction, and what it says is kept as it was said."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curation.budget import Budget
from datamodules.batch import Example
from datamodules.json_rows import load_json
from datamodules.prompts import VERSION

Fault = Literal[
    "",  # usable
    "malformed",  # no UTF-8, no JSON, or JSON without a first choice that holds a text
    "wrong_model",  # another model answered than the one that was asked
    "refused",  # the endpoint would not take this request: too large, a picture it cannot read, a policy
    "filtered",  # the endpoint stopped the answer
    "empty",  # no words
    "truncated",  # cut off at the limit
    "not_text",  # half a surrogate pair, which no file takes
]
RETRIED = ("malformed", "wrong_model")
"""Faults of the moment rather than of the request: asked again before they are believed."""
DOUBTED = (*RETRIED, "refused")
"""Faults that say nothing about a request when every request meets them."""
REFUSED = 400
"""HTTP statuses from here on say that there is no answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a teacher.

    Attributes:
        row: id of the pool's row it is about, for messages.
        example: question, options and pictures.
        pictures: hash of each picture's pixels.
        instruction: ends the prompt; empty for the neutral prompt.
        draw: counts repeated samples of the same prompt.
    """

    row: str
    example: Example
    pictures: tuple[str, ...]
    instruction: str = ""
    draw: int = 0


@dataclass(frozen=True)
class Reply:
    """What can be read of a reply.

    Attributes:
        text: the completion, reasoning that came apart included; empty behind a fault.
        fault: why it says nothing about the question; an unusable reply is unknown, never wrong.
        model: as the teacher calls itself; empty where it does not say.
        tokens: of prompt and answer as the teacher counts them; 0 where it does not say.
        sha256: of the reply's bytes.
    """

    text: str
    fault: Fault
    model: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Heard:
    """What became of a request.

    Attributes:
        request: that was put.
        status: HTTP's, or 200 from a local model.
        body: the reply's bytes; None where none came.
        trouble: why none came.
    """

    request: Request
    status: int
    body: bytes | None
    trouble: str = ""


class TeacherError(ValueError):
    """The teacher cannot be used at all as it is configured: a wrong key, model or address."""


class Teacher(ABC):
    """Answers requests; what it answers is a function of its identity and the request alone, as far as it can be."""

    give_up_after: int = 1
    """Requests in a row without a usable reply after which the rest is not asked."""
    names: Sequence[str] = ()
    """Models that may answer; empty believes any."""
    on_device: bool = True
    """Whether it computes here, so that a job of it wants a card."""
    budget: Budget | None = None
    """What an invocation may spend; None counts nothing."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that replies depend on besides the request, as JSON: goes into keys and provenance; holds no secret."""

    @abstractmethod
    def prompt(self, request: Request) -> str:
        """The words that are put to the teacher, pictures apart."""

    @abstractmethod
    def answer(self, requests: Sequence[Request], take: Callable[[Heard | None], bool]) -> None:
        """Answer requests, in any order.

        Args:
            requests: what is asked.
            take: receives every reply as soon as it is there, and None now and then while none is; returns False to
                stop asking. Replies that are under way then, or when an error comes, are still handed over.

        Raises:
            TeacherError: no request can be answered.
        """

    @abstractmethod
    def most_tokens(self, request: Request) -> int:
        """Upper bound of what one attempt costs in tokens."""

    def attempts(self) -> int:
        """Upper bound of what one request costs in attempts."""
        return 1

    def key(self, request: Request) -> str:
        """SHA-256 of identity, prompt, pictures and draw: equal requests have equal replies."""
        content = [self.identity, VERSION, self.prompt(request), list(request.pictures), request.draw]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def trouble_with(self, heard: Heard) -> str:
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
        """A reply of this teacher, read."""
        return read_reply(status, body, self.names)


def read_reply(status: int, body: bytes, names: Sequence[str] = ()) -> Reply:
    """Read a chat completion; nothing that can stand in it raises.

    Args:
        status: HTTP's.
        body: as it came.
        names: models that may answer, also with a date behind the name ("-2026-01-01"); empty believes any.
    """

    def unusable(fault: Fault, model: str = "", tokens: int = 0) -> Reply:
        return Reply("", fault, model, tokens, hashlib.sha256(body).hexdigest())

    if status >= REFUSED:
        return unusable("refused")
    try:
        content = load_json(body)
        choice = content["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, reasoning = message["content"], reasoning_of(message)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return unusable("malformed")
    model = content.get("model")
    model = model if isinstance(model, str) else ""
    tokens = whole(content.get("usage"), "total_tokens")
    if names and model and not any(model == name or model.startswith(f"{name}-") for name in names):
        return unusable("wrong_model", model, tokens)
    if finish == "content_filter":
        return unusable("filtered", model, tokens)
    if text is None or (isinstance(text, str) and not text.strip()):
        return unusable("truncated" if finish == "length" else "empty", model, tokens)
    if not isinstance(text, str):
        return unusable("malformed", model, tokens)
    if finish == "length":
        return unusable("truncated", model, tokens)
    text = with_reasoning(text, reasoning)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return unusable("not_text", model, tokens)
    return Reply(text, "", model, tokens, hashlib.sha256(body).hexdigest())


def reasoning_of(message: Mapping[str, Any]) -> str:
    """The reasoning that a server took out of a completion; empty where there is none.

    Source: `reasoning_content` of DeepSeek, vLLM and SGLang; `reasoning` of newer vLLM, OpenRouter and Ollama.
    """
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")


def with_reasoning(text: str, reasoning: str) -> str:
    """A completion with its reasoning in front, as the model wrote it before a server took it apart.

    Choice: a completion that holds a thinking block of its own is whole; what was hidden besides is no part of it.
    """
    if not reasoning or "<think>" in text:
        return text
    inner = reasoning.removeprefix("<think>").removesuffix("</think>").strip()
    return f"<think>{inner}</think>{text.removeprefix('</think>').strip()}"


def beginning(body: bytes) -> str:
    """The first words of a reply, for a message."""
    return " ".join(body[:200].decode("utf-8", "replace").split())


def whole(content: Any, name: str) -> int:
    """A whole number of at least 0 in a mapping; 0 where there is none."""
    value = content.get(name) if isinstance(content, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0

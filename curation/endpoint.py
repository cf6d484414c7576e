"""A teacher behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from typing_extensions import override

import endpoints.endpoint
from curation.teachers import Request, Teacher
from datamodules.prompts import question_text
from endpoints.answerer import Heard
from endpoints.chat import Chat
from endpoints.side_by_side import side_by_side
from guards.ranges import at_least, between

SYSTEM = (
    "You are an experienced clinician who teaches by worked examples. Look at the pictures, if there are any, and "
    "reason step by step in plain sentences. Name the options by their text, never by their letter. Do not repeat the "
    "question. End the reasoning with one sentence that states your conclusion as the text of the option. Reply in "
    "exactly this form and write nothing outside of it:\n<think>your reasoning</think><answer>the letter</answer>"
)


class Endpoint(Teacher):
    """Puts every request to the one client as a chat of one turn."""

    @dataclass(frozen=True)
    class Config(endpoints.endpoint.Endpoint.Config):
        """Where, how, and how much at most."""

        system: str = SYSTEM
        """System message; empty leaves it out."""
        temperature: Annotated[float, at_least(0)] = 0.7
        """The temperature of sampling; at least 0."""
        top_p: Annotated[float, between(0, 1, open_low=True)] = 1.0
        """Nucleus, in (0, 1]."""
        max_new_tokens: Annotated[int, at_least(1)] = 2048
        """Limit of a reply in tokens; at least 1. Replies that are cut off there count as unknown."""

    on_device = False
    never_kept = ("wrong_model",)

    def __init__(self, config: Config) -> None:
        """Take the key from its variable.

        Raises:
            UnusableError: the variable is not set, or holds what no header can carry.
        """
        self.config = config
        self.client = endpoints.endpoint.Endpoint(config)
        self.give_up_after, self.names = config.give_up_after, self.client.names
        self.budget = self.client.budget

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        held = ("base_url", "model", "system", "temperature", "top_p", "max_new_tokens", "max_side")
        further = {"body": self.config.body} if self.config.body else {}
        return {"teacher": "endpoint", **{name: getattr(self.config, name) for name in held}, **further}

    @override
    def prompt(self, request: Request) -> str:
        instruction = f"\nHow to reason: {request.instruction}" if request.instruction else ""
        return question_text(request.example) + instruction

    @override
    def attempts(self, request: Request) -> int:
        return self.client.attempts(self.chat(request))

    @override
    def most_tokens(self, request: Request) -> int:
        return self.client.most_tokens(self.chat(request))

    @override
    def answer(self, requests: Sequence[Request], take: Callable[[Heard[Request] | None], bool]) -> None:
        side_by_side(self.heard, requests, take, self.config.concurrency)

    def heard(self, request: Request, halt: threading.Event) -> Heard[Request]:
        """What becomes of a request; arguments and errors as of the client's."""
        return replace(self.client.heard(self.chat(request), halt), request=request)

    def chat(self, request: Request) -> Chat:
        """The same request as a chat; its seed is its own, for endpoints that heed one."""
        c = self.config
        return Chat(
            about=request.row,
            turns=(("user", self.prompt(request)),),
            images=request.example.images,
            max_new_tokens=c.max_new_tokens,
            temperature=c.temperature,
            top_p=c.top_p,
            seed=int(self.key(request)[:7], 16),
        )

"""A model behind an OpenAI-compatible endpoint, which may fail, stall, drip, lie, or answer with a web page."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from typing_extensions import override

from datamodules.base import uniform_hash
from datamodules.batch import BadExampleError
from endpoints.answerer import Answerer, Heard, UnusableError
from endpoints.budget import Budget, Pause, Price
from endpoints.chat import Chat, in_words
from endpoints.reading import REFUSED, RETRIED, beginning
from endpoints.side_by_side import side_by_side
from endpoints.wire import Wire, wait_asked
from guards.ranges import Ranged, at_least, between

LATER = (408, 409, 425, 429)
"""Statuses that ask to come again, as 500 and above do."""
UNUSABLE = (301, 302, 303, 307, 308, 401, 402, 403, 404, 405)
"""Statuses that the next request would get too."""
NO_SCHEMA = (400, 415, 422)
"""Statuses of servers that do not know `response_format`, and of requests that are refused for something else."""
OWN = ("model", "messages", "max_tokens", "max_completion_tokens", "response_format", "stream", "n")
"""Fields of a request that the client fills in."""
DRAWN = ("temperature", "top_p", "seed")
"""Those that say how an answer is drawn; a body may leave them out."""
DECIDES = ("base_url", "model", "system", "max_side", "body")
"""Settings that replies depend on; all others say how, how fast and how much at most."""


@dataclass(frozen=True)
class Tried:
    """What one attempt gave.

    Attributes:
        status: HTTP's; 0 where nothing came.
        body: of the reply.
        wait: seconds that the endpoint asks to be left alone.
        trouble: why there is no reply; empty where there is one, if one that must be doubted.
        is_answer: whether it need not be asked again.
    """

    status: int
    body: bytes
    wait: float
    trouble: str
    is_answer: bool = False


class Endpoint(Answerer[Chat]):
    """POST {base_url}/chat/completions.

    Pictures travel as data URLs of freshly encoded PNG: pixels alone, no metadata of the file. Redirects are not
    followed and proxies not used, so that the key goes to the configured host only.
    """

    never_kept = RETRIED
    needs_proof = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Where, how, and how much at most."""

        base_url: str
        """Up to and without /chat/completions, such as http://localhost:8000/v1."""
        model: str
        """The model's name at the endpoint."""
        key_variable: str = ""
        """Environment variable that holds the key; empty sends none. The key itself is never written anywhere."""
        served_as: tuple[str, ...] = ()
        """Further names under which replies may call the model; its own name with a date or version behind counts."""
        system: str = ""
        """System message of chats that bring none; empty leaves it out."""
        body: dict[str, Any] = field(default_factory=dict)
        """Further fields of a request, such as {reasoning_effort: low}. {temperature: null, top_p: null, seed: null}
        leaves these out for servers that refuse them, which then decide themselves."""
        limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
        """How the server calls the limit of an answer; some reasoning models take the second name alone."""
        max_side: Annotated[int, at_least(28)] = 1536
        """Pictures with a longer side are scaled down to it, in pixels; at least 28."""
        image_tokens: Annotated[int, at_least(0)] = 3100
        """Upper bound of what one picture costs, for budget and --dry-run; at least 0. Qwen2.5-VL takes (side / 28)²:
        3,025 for a square of 1,536 pixels; another model may take more."""
        concurrency: Annotated[int, between(1, 64)] = 4
        """Requests under way at once, 1 to 64."""
        timeout_s: Annotated[float, between(0, 86400, open_low=True)] = 180.0
        """Seconds for one attempt from connecting to the last byte, however slowly it drips; a day at most."""
        retries: Annotated[int, at_least(0)] = 4
        """Further attempts after a failure that may pass; at least 0."""
        backoff_s: Annotated[float, at_least(0)] = 2.0
        """Seconds before the first further attempt, doubled each time, times 0.5 to 1.5; at least 0."""
        max_wait_s: Annotated[float, at_least(0)] = 120.0
        """Longest pause before an attempt; an endpoint that asks for a longer one (Retry-After) is left alone."""
        max_reply_bytes: Annotated[int, at_least(1000)] = 4_000_000
        """A longer reply is malformed; at least 1000."""
        max_requests: Annotated[int, at_least(1)] = 100_000
        """Budget of one invocation in attempts; at least 1."""
        max_tokens: Annotated[int, at_least(1)] = 200_000_000
        """Budget of one invocation in tokens of prompts and replies, as the endpoint counts them, else at most; at
        least 1."""
        max_cost: Annotated[float, at_least(0)] = 0.0
        """Budget of one invocation in money, by the two prices; 0 sets none."""
        price_prompt: Annotated[float, at_least(0)] = 0.0
        """Money per million tokens of prompts, in whatever currency; at least 0."""
        price_completion: Annotated[float, at_least(0)] = 0.0
        """Money per million tokens of answers, hidden reasoning included; at least 0."""
        give_up_after: Annotated[int, at_least(1)] = 8
        """Requests in a row that fail after all their attempts, after which the rest is not asked; at least 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?(/[\w./~%-]*)?", self.base_url, re.ASCII):
                raise ValueError(f"base_url must be http(s)://host[:port]/path without a key, got {self.base_url!r}")
            if not self.model:
                raise ValueError("model must be given")
            if self.key_variable and not self.key_variable.isidentifier():
                raise ValueError("key_variable must be the name of an environment variable, not the key itself")
            told = [name for name, value in self.body.items() if name in OWN or (name in DRAWN and value is not None)]
            if told:
                raise ValueError(f"body must not hold {told[0]!r}: whoever asks decides that; null leaves out {DRAWN}")
            if self.max_cost and not (self.price_prompt or self.price_completion):
                raise ValueError("max_cost needs price_prompt or price_completion, else nothing costs anything")

        @property
        def price(self) -> Price:
            """What tokens cost."""
            return Price(self.price_prompt, self.price_completion)

        @property
        def identity(self) -> dict[str, Any]:
            """All that replies depend on besides what is asked; holds no secret."""
            return {name: getattr(self, name) for name in DECIDES}

    def __init__(self, config: Config) -> None:
        """Take the key from its variable.

        Raises:
            UnusableError: the variable is not set, or holds what no header can carry.
        """
        self.config = config
        self.give_up_after = config.give_up_after
        self.names = (config.model, *config.served_as)
        self.budget = Budget(config.max_requests, config.max_tokens, config.max_cost or math.inf, config.price)
        self.pause, self.knows_schemas = Pause(), True
        key = os.environ.get(config.key_variable, "").strip() if config.key_variable else ""
        if config.key_variable and not (key and key.isascii() and key.isprintable()):
            raise UnusableError(
                f"key_variable: no key in the environment variable {config.key_variable!r}; export it, "
                "or set key_variable to '' where every reply is kept already"
            )
        url = f"{config.base_url.rstrip('/')}/chat/completions"
        self.wire = Wire(url, key, config.timeout_s, config.max_reply_bytes)

    @override
    def key(self, request: Chat) -> str:
        content = [self.config.identity, self.whole(request).content]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @override
    def note(self, request: Chat) -> Mapping[str, Any]:
        return {"about": request.about, "model": self.config.identity, "turns": self.whole(request).turns}

    @override
    def attempts(self, request: Chat) -> int:
        # One that must fit a schema may be put in words besides, to a server that refuses the field; see `heard`.
        return 1 + self.config.retries + (request.schema is not None and self.knows_schemas)

    @override
    def most_tokens(self, request: Chat) -> int:
        return sum(self.most(request))

    def most(self, request: Chat) -> tuple[int, int]:
        """Upper bounds of what one attempt costs in tokens of prompt and of answer."""
        chat = self.whole(request)
        asked = 64 + chat.text_bytes + len(chat.images) * self.config.image_tokens
        asked += len(json.dumps(chat.schema).encode()) + 64 if chat.schema is not None else 0
        return asked, chat.max_new_tokens

    @override
    def answer(self, requests: Sequence[Chat], take: Callable[[Heard[Chat] | None], bool]) -> None:
        side_by_side(self.heard, requests, take, self.config.concurrency)

    def heard(self, chat: Chat, halt: threading.Event) -> Heard[Chat]:
        """Ask until there is an answer, the attempts are used up, or `halt` is set.

        Raises:
            UnusableError: every other request would fail in the same way.
        """
        messages, most, words, attempt = self.messages(chat), self.most(chat), False, 0
        tried = Tried(0, b"", 0.0, "not asked")
        while attempt <= self.config.retries:
            if not self.pause.over(halt):
                return Heard(chat, 0, None, "stopped")
            if not self.budget.take(*most):
                return Heard(chat, 0, None, "the budget is spent: max_requests, max_tokens or max_cost")
            by_schema = chat.schema is not None and self.knows_schemas and not words
            tried = self.attempt(self.payload(chat, messages, by_schema=by_schema), most)
            if by_schema and tried.status in NO_SCHEMA:
                words = True  # the server may not know the field; in words it may take the same request
                continue
            if tried.is_answer:
                self.knows_schemas &= not words or tried.status >= REFUSED
                return Heard(chat, tried.status, tried.body)
            if tried.wait > self.config.max_wait_s:
                return Heard(chat, 0, None, f"HTTP {tried.status} with Retry-After above max_wait_s")
            self.pause.ask(tried.wait)
            jitter = 0.5 + uniform_hash("wait", chat.about, chat.seed, attempt)
            pause = min(self.config.max_wait_s, self.config.backoff_s * 2**attempt * jitter)
            attempt += 1
            if attempt <= self.config.retries and halt.wait(pause):
                return Heard(chat, 0, None, "stopped")
        return Heard(chat, 0, None, tried.trouble) if tried.trouble else Heard(chat, tried.status, tried.body)

    def attempt(self, payload: bytes, most: tuple[int, int]) -> Tried:
        """Ask once, and book what it cost; `most` was set aside for it.

        Raises:
            UnusableError: as `heard`.
        """
        spent = most  # of what never came nobody knows what it cost
        try:
            status, headers, body = self.wire.post(payload)
            if status in UNUSABLE:
                raise UnusableError(self.unusable(status, body))
            reply = self.read(status, body)
            told = (reply.prompt_tokens, reply.completion_tokens)
            spent = apart(told, most, self.config.price) if any(told) else (0, 0) if status >= REFUSED else most
        except (OSError, http.client.HTTPException) as error:
            return Tried(0, b"", 0.0, f"{type(error).__name__}: {str(error)[:200]}")
        finally:
            self.budget.settle(most, spent)
        later = status >= 500 or status in LATER
        is_answer = not later and reply.fault not in RETRIED
        return Tried(status, body, wait_asked(headers), f"HTTP {status}" if later else "", is_answer)

    def whole(self, chat: Chat) -> Chat:
        """The chat with the configured system message, where it brings none."""
        if not self.config.system or any(role == "system" for role, _ in chat.turns):
            return chat
        turns = (("system", self.config.system), *chat.turns)
        return replace(chat, turns=turns)

    def messages(self, chat: Chat) -> list[dict[str, Any]]:
        """What is said and shown, as JSON.

        Raises:
            UnusableError: a picture cannot be read.
        """
        try:
            return self.whole(chat).messages(self.config.max_side)
        except BadExampleError as error:
            raise UnusableError(f"{chat.about}: {error}; did the picture change since the set was read?") from error

    def payload(self, chat: Chat, messages: list[dict[str, Any]], *, by_schema: bool) -> bytes:
        """A request's body; `by_schema`: the server is told of the schema in its own field, else in words."""
        told: dict[str, Any] = {}
        if chat.schema is not None and by_schema:
            named = {"name": "answer", "schema": chat.schema, "strict": True}
            told["response_format"] = {"type": "json_schema", "json_schema": named}
        elif chat.schema is not None:
            messages = in_words(messages, json.dumps(chat.schema))
        sent = {
            "model": self.config.model,
            "messages": messages,
            "temperature": chat.temperature,
            "top_p": chat.top_p,
            self.config.limit_field: chat.max_new_tokens,
            "seed": chat.seed,
            **told,
            **self.config.body,
        }
        return json.dumps({name: value for name, value in sent.items() if value is not None}).encode()

    def unusable(self, status: int, body: bytes) -> str:
        """A status that ends everything, in words."""
        place = f"{self.config.base_url} (model {self.config.model!r})"
        key = f"the key in ${self.config.key_variable}" if self.config.key_variable else "a key (key_variable)"
        hint = {401: f"is {key} right?", 402: "is the account empty?", 403: f"does {key} allow this model?"}
        return (
            f"{place} answers HTTP {status}: {beginning(body)!r}; {hint.get(status, 'are base_url and model right?')}"
        )


def apart(told: tuple[int, int], most: tuple[int, int], price: Price) -> tuple[int, int]:
    """Tokens of prompt and answer; of a sum alone as much as can be counts as what costs more.

    Args:
        told: by the endpoint; a sum alone stands with the prompt.
        most: that either may be.
        price: of both.
    """
    if told[1] or price.prompt > price.completion:
        return told
    answer = min(told[0], most[1])
    return told[0] - answer, answer

"""A teacher behind an OpenAI-compatible endpoint, which may fail, stall, drip, lie, or answer with a web page."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from PIL import Image
from typing_extensions import override

from curation.budget import Budget
from curation.teachers import RETRIED, Heard, Request, Teacher, TeacherError, beginning
from curation.wire import Wire, wait_asked
from datamodules.base import uniform_hash
from datamodules.batch import BadExampleError, ImageSource, load_image
from datamodules.prompts import question_text
from guards.ranges import Ranged, at_least, between

SYSTEM = (
    "You are an experienced clinician who teaches by worked examples. Look at the pictures, if there are any, and "
    "reason step by step in plain sentences. Name the options by their text, never by their letter. Do not repeat the "
    "question. End the reasoning with one sentence that states your conclusion as the text of the option. Reply in "
    "exactly this form and write nothing outside of it:\n<think>your reasoning</think><answer>the letter</answer>"
)
LATER = (408, 409, 425, 429)
"""Statuses that ask to come again, as 500 and above do."""
UNUSABLE = (301, 302, 303, 307, 308, 401, 402, 403, 404, 405)
"""Statuses that the next request would get too."""


class Endpoint(Teacher):
    """POST {base_url}/chat/completions.

    Pictures travel as data URLs of freshly encoded PNG: pixels alone, no metadata of the file. Redirects are not
    followed and proxies not used, so that the key goes to the configured host only.
    """

    @dataclass(frozen=True)
    class Config(Ranged):
        """Where, how, and how much at most."""

        base_url: str
        """Up to and without /chat/completions, such as http://localhost:8000/v1."""
        model: str
        """As the endpoint calls it."""
        key_variable: str = ""
        """Environment variable that holds the key; empty sends none. The key itself is never written anywhere."""
        served_as: tuple[str, ...] = ()
        """Further names under which replies may call the model; the model's own name with a date behind it counts."""
        system: str = SYSTEM
        """System message; empty leaves it out."""
        temperature: Annotated[float, at_least(0)] = 0.7
        """Of sampling; at least 0."""
        top_p: Annotated[float, between(0, 1, open_low=True)] = 1.0
        """Nucleus, in (0, 1]."""
        max_new_tokens: Annotated[int, at_least(1)] = 2048
        """Limit of a reply in tokens; at least 1. Replies that are cut off there count as unknown."""
        max_side: Annotated[int, at_least(28)] = 1536
        """Pictures with a longer side are scaled down to it, in pixels; at least 28."""
        image_tokens: Annotated[int, at_least(0)] = 2000
        """Upper bound of what one picture costs, for the budget and --dry-run; at least 0."""
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

    on_device = False

    def __init__(self, config: Config) -> None:
        """Take the key from its variable.

        Raises:
            TeacherError: the variable is not set, or holds what no header can carry.
        """
        self.config = config
        self.give_up_after = config.give_up_after
        self.names = (config.model, *config.served_as)
        self.budget = Budget(config.max_requests, config.max_tokens)
        key = os.environ.get(config.key_variable, "").strip() if config.key_variable else ""
        if config.key_variable and not (key and key.isascii() and key.isprintable()):
            raise TeacherError(f"key_variable: no key in the environment variable {config.key_variable!r}; export it")
        url = f"{config.base_url.rstrip('/')}/chat/completions"
        self.wire = Wire(url, key, config.timeout_s, config.max_reply_bytes)

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        held = ("base_url", "model", "system", "temperature", "top_p", "max_new_tokens", "max_side")
        return {"teacher": "endpoint", **{name: getattr(self.config, name) for name in held}}

    @override
    def prompt(self, request: Request) -> str:
        instruction = f"\nHow to reason: {request.instruction}" if request.instruction else ""
        return question_text(request.example) + instruction

    @override
    def attempts(self) -> int:
        return 1 + self.config.retries

    @override
    def most_tokens(self, request: Request) -> int:
        text = len((self.config.system + self.prompt(request)).encode())  # a token holds at least one byte
        pictures = len(request.pictures) * self.config.image_tokens
        return 64 + text + pictures + self.config.max_new_tokens

    @override
    def answer(self, requests: Sequence[Request], take: Callable[[Heard | None], bool]) -> None:
        waiting, lock, done, halt = iter(requests), threading.Lock(), queue.SimpleQueue(), threading.Event()

        def work() -> None:
            try:
                while not halt.is_set():
                    with lock:
                        request = next(waiting, None)
                    if request is None:
                        break
                    done.put(self.heard(request, halt))
            except BaseException as error:
                done.put(error)
            done.put(None)

        for _ in range(self.config.concurrency):
            threading.Thread(target=work, daemon=True).start()
        alive, errors = self.config.concurrency, []
        try:
            while alive:
                heard = None
                with suppress(queue.Empty):
                    heard = done.get(timeout=0.2)
                    alive -= heard is None
                if isinstance(heard, BaseException):  # what is under way elsewhere still comes
                    errors.append(heard)
                    halt.set()
                elif not take(heard):
                    halt.set()
        finally:
            halt.set()
        if errors:
            raise errors[0]

    def heard(self, request: Request, halt: threading.Event) -> Heard:
        """Ask until there is an answer, the attempts are used up, or `halt` is set.

        Raises:
            TeacherError: every other request would fail in the same way.
        """
        key, most = self.key(request), self.most_tokens(request)
        try:
            payload = self.payload(request, key)
        except BadExampleError as error:
            raise TeacherError(f"{request.row}: {error}; did the picture change since the pool was read?") from error
        status, body, trouble = 0, b"", "not asked"
        for attempt in range(1 + self.config.retries):
            if not self.budget.take(most):
                return Heard(request, 0, None, "the budget is spent: max_requests or max_tokens")
            spent, wait = most, 0.0
            try:
                status, headers, body = self.wire.post(payload)
            except (OSError, http.client.HTTPException) as error:
                trouble = f"{type(error).__name__}: {str(error)[:200]}"
            else:
                if status in UNUSABLE:
                    raise TeacherError(self.unusable(status, body))
                reply = self.read(status, body)
                spent, wait = reply.tokens or most, wait_asked(headers)
                later = status >= 500 or status in LATER
                trouble = f"HTTP {status}" if later else ""
                if not later and reply.fault not in RETRIED:
                    self.budget.settle(most, spent)
                    return Heard(request, status, body)
            self.budget.settle(most, spent)
            if wait > self.config.max_wait_s:
                return Heard(request, 0, None, f"HTTP {status} with Retry-After above max_wait_s")
            jitter = 0.5 + uniform_hash("wait", key, attempt)
            pause = min(self.config.max_wait_s, max(wait, self.config.backoff_s * 2**attempt * jitter))
            if attempt < self.config.retries and halt.wait(pause):
                return Heard(request, 0, None, "stopped")
        return Heard(request, 0, None, trouble) if trouble else Heard(request, status, body)

    def payload(self, request: Request, key: str) -> bytes:
        """The request's body; the same request has the same seed, for endpoints that heed one."""
        urls = [data_url(source, self.config.max_side) for source in request.example.images]
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        content = [*pictures, {"type": "text", "text": self.prompt(request)}] if urls else self.prompt(request)
        system = [{"role": "system", "content": self.config.system}] if self.config.system else []
        return json.dumps(
            {
                "model": self.config.model,
                "messages": [*system, {"role": "user", "content": content}],
                "temperature": self.config.temperature,
                "top_p": self.config.top_p,
                "max_tokens": self.config.max_new_tokens,
                "seed": int(key[:7], 16),
            }
        ).encode()

    def unusable(self, status: int, body: bytes) -> str:
        """A status that ends everything, in words."""
        place = f"{self.config.base_url} (model {self.config.model!r})"
        key = f"the key in ${self.config.key_variable}" if self.config.key_variable else "a key (key_variable)"
        hint = {401: f"is {key} right?", 402: "is the account empty?", 403: f"does {key} allow this model?"}
        return (
            f"{place} answers HTTP {status}: {beginning(body)!r}; {hint.get(status, 'are base_url and model right?')}"
        )


def data_url(source: ImageSource, max_side: int) -> str:
    """A picture as PNG in a URL, scaled down to `max_side` pixels.

    Raises:
        BadExampleError: it cannot be read.
    """
    image = load_image(source)
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def png(image: Image.Image) -> bytes:
    """The pixels as PNG, without metadata."""
    stream = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(stream, "PNG")
    return stream.getvalue()

"""The one thread that the model works in: requests wait for each other, and one that nobody waits for is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import TemplateError as JinjaError

from answering.conversation import chat_prompt, reply
from answering.live_model import LiveModel
from answering.serving.chat_request import ChatRequest
from answering.serving.errors import ApiError
from datamodules.batch import BadExampleError, PictureError


class GivenUpError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Written:
    """An answer, and what it cost.

    Attributes:
        text: of the answer.
        truncated: it reached its limit.
        prompt_tokens: of what was asked.
        completion_tokens: of the answer.
    """

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int


class Worker:
    """Answers requests, one after the other."""

    def __init__(self, model: LiveModel, served: Mapping[str, tuple[Path, ...]], *, waiting: int = 32) -> None:
        """Start the thread.

        Args:
            model: on the base.
            served: name -> adapters that act together.
            waiting: requests at most, that in work included.
        """
        self.model, self.served, self.waiting = model, served, waiting
        threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(1, "model", initializer=torch.set_num_threads, initargs=(threads,))
        self.lock, self.held, self.closing = threading.Lock(), 0, threading.Event()

    def submit(self, request: ChatRequest, tell: Callable[[str], None], gone: threading.Event) -> Future[Written]:
        """Put a request in the line.

        Args:
            request: as `read_request` gives it.
            tell: is given the text piece by piece, in the worker's thread.
            gone: set when nobody waits any more; the answer is then ended.

        Raises:
            ApiError: too many are waiting.
        """
        with self.lock:
            if self.held >= self.waiting:
                raise ApiError(429, f"{self.waiting} requests are waiting; come again later", code="server_busy")
            self.held += 1
        future = self.pool.submit(self._answer, request, tell, gone)
        future.add_done_callback(self._left)
        return future

    def close(self) -> None:
        """End what is in work, and take nothing more."""
        self.closing.set()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _left(self, _: Future[Written]) -> None:
        with self.lock:
            self.held -= 1

    def _answer(self, request: ChatRequest, tell: Callable[[str], None], gone: threading.Event) -> Written:
        def heard(piece: str) -> None:
            if gone.is_set() or self.closing.is_set():
                raise GivenUpError
            tell(piece)

        heard("")
        with self.model.acting(self.served[request.model]) as policy:
            try:
                prompt = chat_prompt(policy, request.turns, request.system, "the request")
            except PictureError as error:
                raise ApiError(400, str(error), "messages", "invalid_image") from error
            except (JinjaError, ValueError) as error:
                message = f"messages: the model's template takes no such conversation: {error}"
                raise ApiError(400, message, "messages", "invalid_value") from error
            try:
                answer = reply(policy, prompt, request.decoding, heard)
            except BadExampleError as error:
                raise ApiError(400, str(error), "messages", "context_length_exceeded") from error
        return Written(answer.completion, answer.truncated, len(prompt.ids), answer.n_tokens)

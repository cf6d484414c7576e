"""An answer on its way out: from the worker's thread to a reply in one piece, or to a stream of events."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect

from answering.serving.chat_request import ChatRequest
from answering.serving.errors import ApiError
from answering.serving.worker import GivenUpError, Worker, Written

LOOK_S = 1.0
"""Seconds between two looks whether somebody still waits."""


class Answering:
    """An answer on its way from the worker's thread."""

    def __init__(self, worker: Worker, asked: ChatRequest, is_gone: Callable[[], Any]) -> None:
        """Put the request in the line.

        Args:
            worker: answers.
            asked: the request.
            is_gone: awaited now and then, whether nobody waits any more.

        Raises:
            ApiError: too many are waiting.
        """
        self.queue: asyncio.Queue[str | Written | BaseException] = asyncio.Queue()
        self.is_gone, self.gone = is_gone, threading.Event()
        loop = asyncio.get_running_loop()

        def put(item: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.queue.put_nowait, item)

        self.future = worker.submit(asked, lambda piece: put(piece) if piece else None, self.gone)
        self.future.add_done_callback(lambda done: put(outcome(done)))

    async def next(self) -> str | Written:
        """The next piece, or at the end the whole.

        Raises:
            ApiError: the request is refused.
            ClientDisconnect: nobody waits any more.
        """
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    found = await self.queue.get()
            except TimeoutError:
                if await self.is_gone():
                    self.give_up()
                    raise ClientDisconnect from None
                continue
            except BaseException:
                self.give_up()
                raise
            if isinstance(found, BaseException):
                raise found
            return found

    def give_up(self) -> None:
        """Let the worker end the answer at its next token, or not begin it."""
        self.gone.set()
        self.future.cancel()


def outcome(done: Any) -> Written | BaseException:
    """What became of a request."""
    error = None if done.cancelled() else done.exception()
    if done.cancelled() or isinstance(error, GivenUpError):
        return ApiError(503, "the server is closing", code="server_closing")
    return done.result() if error is None else error


async def events(answer: Answering, first: str | Written, asked: ChatRequest) -> AsyncIterator[str]:
    """The lines of a stream of server-sent events."""
    name, made = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    head = {"id": name, "object": "chat.completion.chunk", "created": made, "model": asked.model}

    def event(delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return line({**head, "choices": [choice]})

    try:
        yield event({"role": "assistant", "content": ""})
        found = first
        while not isinstance(found, Written):
            yield event({"content": found})
            found = await answer.next()
        yield event({}, "length" if found.truncated else "stop")
        if asked.counts:
            yield line({**head, "choices": [], "usage": usage(found)})
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield line(error.body)
    finally:
        answer.give_up()


def line(content: Mapping[str, Any]) -> str:
    """One event."""
    return f"data: {json.dumps(content)}\n\n"


def whole(model: str, found: Written) -> dict[str, Any]:
    """A completion in one piece."""
    message = {"role": "assistant", "content": found.text, "refusal": None}
    finish = "length" if found.truncated else "stop"
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage(found),
    }


def usage(found: Written) -> dict[str, int]:
    """Numbers of tokens."""
    total = found.prompt_tokens + found.completion_tokens
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": total,
    }

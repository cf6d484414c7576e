"""A judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import override

import endpoints.endpoint
import endpoints.reading
from endpoints.answerer import UnusableError
from endpoints.asking import UnfinishedError, ask
from endpoints.chat import Chat
from endpoints.replies import Replies
from guards.printable import printable_lines
from guards.ranges import at_least
from judging.judge import Judge, JudgeError, Reply, Request


class EndpointJudge(Judge):
    """Puts every message to the one client as a chat of one turn, the picture before the words.

    Replies are kept twice: as they came, before they are read, in the folder of replies, and as a judge's lines. What
    the endpoint refuses or filters for good, and what has no words, is a reply without words: no verdict.
    """

    @dataclass(frozen=True)
    class Config(endpoints.endpoint.Endpoint.Config):
        """Where, how, and how much at most; temperature and limit are the release's."""

        temperature: Annotated[float, at_least(0)] = 0.1
        """The temperature of sampling; 0 takes the most likely token as far as the server can."""
        max_new_tokens: Annotated[int, at_least(1)] = 4096
        """Limit of a reply in tokens; at least 1."""
        seed: int = 0
        """The seed of the draws, for servers that heed one."""
        replies: str = "runs/.replies"
        """Folder that keeps every reply as it came; experiments below runs/ use the same."""

    def __init__(self, config: Config) -> None:
        """Take the key from its variable.

        Raises:
            UnusableError: the variable is not set, or holds what no header can carry.
        """
        self.config, self.client, self.price = config, endpoints.endpoint.Endpoint(config), config.price

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return identity_of(self.config)

    @override
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        found, trouble = self.heard(requests)
        if trouble:
            print(printable_lines(trouble), file=sys.stderr)
        yield from found

    def heard(
        self, requests: Sequence[Request], stop: Callable[[], bool] | None = None
    ) -> tuple[Iterator[tuple[Request, Reply]], str]:
        """The requests that have a reply, with it, and why others have none.

        Args:
            requests: what is asked.
            stop: as of `endpoints.asking.ask`.

        Raises:
            JudgeError: nobody answers as things are configured.
        """
        kept, chats = Replies(Path(self.config.replies)), [self.chat(request) for request in requests]
        self.client.is_proven = self.client.is_proven or self.has_answered(kept)
        trouble = ""
        try:
            found = ask(self.client, chats, kept, self.config.model, stop)
        except UnfinishedError as error:
            found, trouble = (self.known(chat, kept) for chat in chats), str(error)
        except UnusableError as error:
            raise JudgeError(str(error)) from error
        pairs = ((request, reply) for request, reply in zip(requests, found, strict=True) if reply is not None)
        return ((request, as_said(reply)) for request, reply in pairs), trouble

    @override
    def cost(self, requests: Sequence[Request]) -> str:
        kept, chats = Replies(Path(self.config.replies)), [self.chat(request) for request in requests]
        new = [chat for chat in chats if kept.get(self.client.key(chat)) is None]
        most = [self.client.most(chat) for chat in new]
        prompt, completion = map(sum, zip(*most, strict=True)) if most else (0, 0)
        money = self.config.price.told(prompt, completion)
        attempts = max((self.client.attempts(chat) for chat in new), default=1)
        known = f"{len(chats) - len(new)} of them in {self.config.replies}"
        return (
            f"{known}; the others at most {prompt + completion} tokens{money}; up to {attempts} times that on failures"
        )

    def has_answered(self, kept: Replies) -> bool:
        """Whether the folder holds words of this very model, so that what it refuses counts where only that is left."""
        who = json.loads(json.dumps(self.config.identity))
        for path in kept.folder.glob("*/*.json"):
            held = kept.get(path.stem)
            if held is not None and self.client.read(*held).text and kept.asked(path.stem).get("model") == who:
                return True
        return False

    def known(self, chat: Chat, kept: Replies) -> endpoints.reading.Reply | None:
        """The reply to a chat if there is one."""
        held = kept.get(self.client.key(chat))
        return None if held is None else self.client.read(*held)

    def chat(self, request: Request) -> Chat:
        """The message as a chat; its seed is its own, and no other where nothing is drawn."""
        return Chat(
            about=request.case_id,
            turns=(("user", request.prompt),),
            images=request.pictures,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            seed=int(request.key[:7], 16) if self.config.temperature else 0,
        )


def identity_of(config: EndpointJudge.Config) -> dict[str, Any]:
    """All that replies depend on besides the request, without anybody to ask."""
    drawn = {name: getattr(config, name) for name in ("temperature", "max_new_tokens", "seed")}
    return {"judge": "endpoint", **config.identity, **drawn}


def as_said(reply: endpoints.reading.Reply) -> Reply:
    """The client's reply as a judge's."""
    return Reply(reply.text, reply.fault == "truncated", reply.prompt_tokens, reply.completion_tokens)

"""Asking a model behind an endpoint a matrix's questions, in the words in which a model of our own is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from answering.answer import Answer
from answering.asking import streams
from answering.decoding import Decoding
from artifacts.adapter_files import AdapterError
from datamodules.batch import Example
from datamodules.prompts import prompt_text
from endpoints.asking import ask
from endpoints.chat import Chat
from endpoints.endpoint import Endpoint
from endpoints.reading import Reply
from endpoints.replies import Replies
from evaluation.official import medxpertqa

if TYPE_CHECKING:
    from answering.examination import Cell

LARGEST_SEED = 2**31 - 1
"""What servers take as a seed."""


class BehindEndpoint:
    """Every reply is kept under the hash of what was asked: a kill, or a spent budget, costs no reply that came."""

    def __init__(self, endpoint: Endpoint, replies: Replies, decoding: Decoding) -> None:
        """Keep whom to ask, and how.

        Args:
            endpoint: the client.
            replies: what is known already; takes what comes.
            decoding: how answers are drawn.

        Raises:
            ValueError: by measuring options, which no chat endpoint does.
        """
        if decoding.protocol == "likelihood":
            raise ValueError(NO_LIKELIHOOD)
        self.endpoint, self.replies, self.decoding = endpoint, replies, decoding

    def check(self, adapters: Iterable[Path]) -> None:
        """Refuse adapters.

        Raises:
            AdapterError: there is one.
        """
        if found := list(adapters):
            raise AdapterError(f"{found[0]}: a model behind an endpoint takes no adapter of ours; serve it with it")

    def keep_to(self, index: int, count: int) -> None:
        """Spend no more than one of several shares of the budget, as of `Budget.keep_to`."""
        self.endpoint.budget.keep_to(index, count)

    @contextmanager
    def acting(self, adapters: Sequence[Path]) -> Iterator[BehindEndpoint]:
        """Who answers: always the same."""
        self.check(adapters)
        yield self

    def answers(self, cell: Cell, questions: Sequence[Example], instruction: str) -> list[Answer]:
        """The answers to some of a cell's questions; the samples of a question are contiguous.

        Args:
            cell: which.
            questions: as its variant puts them.
            instruction: of its guideline.

        Raises:
            UnfinishedError: some have none yet; the same command goes on.
            UnusableError: nobody answers as things are configured.
        """
        first = self.first_chats(questions, instruction, cell.guideline)
        given = list(map(answer_of, ask(self.endpoint, first, self.replies, cell.name)))
        if self.decoding.protocol == "single":
            return given
        rows = [example for example in questions for _ in range(self.decoding.samples)]
        seeds = self.seeds(questions, cell.guideline, "second turn")
        held = [i for i, answer in enumerate(given) if answer.completion.strip()]  # nothing said is not gone on from
        second = [self.second_chat(first[i], rows[i], given[i], seeds[i]) for i in held]
        last = map(answer_of, ask(self.endpoint, second, self.replies, f"{cell.name}, the letter"))
        for i, answer in zip(held, last, strict=True):
            given[i] = joined(given[i], answer)
        return given

    def first_chats(self, questions: Sequence[Example], instruction: str, guideline: str) -> list[Chat]:
        """A chat per answer: one user turn, or the release's system prompt and first turn."""
        rows = [example for example in questions for _ in range(self.decoding.samples)]
        return [
            Chat(
                about=example.question_id,
                turns=self.turns(example, instruction),
                images=example.images,
                max_new_tokens=self.decoding.max_new_tokens,
                temperature=self.decoding.temperature,
                seed=seed,
                pictures_last=self.decoding.protocol == "two_turn",
            )
            for example, seed in zip(rows, self.seeds(questions, guideline), strict=True)
        ]

    def turns(self, example: Example, instruction: str) -> tuple[tuple[str, str], ...]:
        """What is said before the first answer."""
        if self.decoding.protocol == "single":
            return (("user", prompt_text(example, instruction)),)
        text = medxpertqa.first_turn(medxpertqa.released_question(example.question, example.options))
        return (("system", medxpertqa.SYSTEM), ("user", text))

    def second_chat(self, first: Chat, example: Example, said: Answer, seed: int) -> Chat:
        """The chat so far, and the words that ask for the letter."""
        trigger = medxpertqa.second_turn(len(example.options))
        turns = (*first.turns, ("assistant", said.completion), ("user", trigger))
        return replace(first, turns=turns, seed=seed, max_new_tokens=self.decoding.answer_tokens)

    def seeds(self, questions: Sequence[Example], guideline: str, *turn: str) -> list[int]:
        """One per answer; all 0 where nothing is drawn, so that experiments of other seeds share the replies."""
        drawn = streams(questions, guideline, self.decoding, *turn)
        return [seed & LARGEST_SEED if self.decoding.temperature else 0 for seed in drawn]


NO_LIKELIHOOD = (
    "protocol=likelihood measures the probability of each option, and chat endpoints write text alone; choose "
    "protocol=single or two_turn, or load the model's weights here"
)


def answer_of(reply: Reply) -> Answer:
    """A reply as an answer; one without usable words is an answer without words, and says why."""
    return Answer(
        completion=reply.text,
        ids=(),
        n_tokens=reply.completion_tokens,
        truncated=reply.fault == "truncated",
        prompt_tokens=reply.prompt_tokens,
        fault="" if reply.fault == "truncated" else reply.fault,
    )


def joined(first: Answer, last: Answer) -> Answer:
    """An answer of two turns."""
    return replace(
        last,
        n_tokens=first.n_tokens + last.n_tokens,
        prompt_tokens=first.prompt_tokens + last.prompt_tokens,
        truncated=first.truncated or last.truncated,
        turns=(first.completion,),
    )

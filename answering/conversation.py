"""A conversation with a model: turns of texts and pictures in, the next answer out, piece by piece if so wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from answering.answer import Answer
from answering.asking import written
from answering.decoding import Decoding
from answering.text_stream import TextStream
from datamodules.batch import Example, ImageSource
from datamodules.prompts import prompt_text
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import stream_seed


@dataclass(frozen=True)
class Turn:
    """What one side says: texts, and pictures where they stand among them."""

    role: Literal["user", "assistant"]
    parts: tuple[str | ImageSource, ...]


def question_turn(example: Example, instruction: str) -> Turn:
    """A question as the examination puts it: its pictures, then its text."""
    return Turn("user", (*example.images, prompt_text(example, instruction)))


def chat_prompt(policy: Policy, turns: Sequence[Turn], system: str | None = None, name: str = "chat") -> Prompt:
    """The prompt that an answer to the last turn is written behind.

    For one question it is the examination's own prompt, token for token.

    Args:
        policy: whose family writes it.
        turns: in order, the last one the user's.
        system: system prompt in place of the family's own; empty leaves it out.
        name: for messages.

    Raises:
        PictureError: a picture cannot be read, or the model takes none like it.
        ValueError: the checkpoint's template takes no such chat.
    """
    parts = [part for turn in turns for part in turn.parts]
    images = tuple(policy.pictures.read(part) for part in parts if not isinstance(part, str))
    said = [(turn.role, [part if isinstance(part, str) else None for part in turn.parts]) for turn in turns]
    ids = policy.family.chat_ids(said, [item.n_tokens for _, item in images], system=system)
    positions = policy.family.position_ids(ids, [item.grid for _, item in images])
    return Prompt(tuple(ids), images, positions, len(ids) - 1, name)


def reply(policy: Policy, prompt: Prompt, decoding: Decoding, tell: Callable[[str], None] | None = None) -> Answer:
    """One answer.

    Args:
        policy: asked under its active adapters.
        prompt: of `chat_prompt`.
        decoding: how; an answer never has more tokens than the model's context leaves.
        tell: is given the text piece by piece, together the whole of it. What it raises ends the answer.

    Raises:
        BadExampleError: the prompt leaves no room for an answer.
    """
    room = max(1, policy.family.context - len(prompt.ids))
    decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, room), samples=1)
    decode = partial(policy.family.tokenizer.decode, skip_special_tokens=False)
    stream = TextStream(decode, policy.family.end_token_ids, tell) if tell is not None else None
    (answer,) = written(policy, [prompt], decoding, [stream_seed("conversation", decoding.seed)], stream)
    if stream is not None:
        stream.close(answer.completion)
    return answer

"""Questions, pictures and answers of the work, exact to the token. Imported by both environments."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from transformers import PreTrainedTokenizerFast

from benchmarks import work
from benchmarks.made_model import words


@dataclass(frozen=True)
class Row:
    """One question with its picture and the answer to imitate.

    Attributes:
        question: the stem.
        options: two texts.
        image: 224 x 224 pixels of noise.
        answer: without the end token; empty where nothing is imitated.
    """

    question: str
    options: tuple[str, str]
    image: Image.Image
    answer: str = ""

    @property
    def text(self) -> str:
        """The user turn as `datamodules.prompts` writes it without an instruction."""
        return f"{self.question}\nA) {self.options[0]}\nB) {self.options[1]}"


def rows(tokens: PreTrainedTokenizerFast, lengths: Sequence[tuple[int, int]], seed: int = 0) -> list[Row]:
    """Make one row per pair (prompt tokens, answer tokens with the end token), exact to the token.

    Args:
        tokens: of the made model.
        lengths: wanted; 0 answer tokens make no answer.
        seed: of words and pictures.
    """
    rng, noise = random.Random(seed), np.random.RandomState(seed)
    made = []
    for prompt, answer in lengths:
        image = Image.fromarray(noise.randint(0, 255, (work.PICTURE, work.PICTURE, 3), dtype=np.uint8))
        options = (words(rng, 1)[0] + "a", words(rng, 1)[0] + "b")

        def turn(question: str, options: tuple[str, str] = options, image: Image.Image = image) -> int:
            return prompt_length(tokens, Row(question, options, image))

        question = exactly(prompt, words(rng, 200), turn)
        made.append(Row(question, options, image, exactly(answer - 1, words(rng, 200), token_counter(tokens))))
    return made


def rl_rows(tokens: PreTrainedTokenizerFast) -> list[Row]:
    """The 32 questions of an RL run."""
    return rows(tokens, [(work.PROMPT_TOKENS, 0)] * work.PROMPTS)


def sft_rows(tokens: PreTrainedTokenizerFast, kind: str) -> list[Row]:
    """The rows of an SFT run, no picture twice: 200 + 64 tokens, or 120 to 240 and 16 to 128 for `mixed`."""
    rng, count = random.Random(3), work.MAX_STEPS * work.SFT_ROWS
    fixed = [(work.PROMPT_TOKENS, work.COMPLETION_TOKENS)] * count
    mixed = [(rng.randint(120, 240), rng.randint(16, 128)) for _ in range(count)]
    return rows(tokens, mixed if kind == "mixed" else fixed)


def prompt_length(tokens: PreTrainedTokenizerFast, row: Row) -> int:
    """Tokens of a row's prompt: the frame has one placeholder, which the picture replaces by 64."""
    return len(tokens(chat_text(tokens, row))["input_ids"]) - 1 + work.IMAGE_TOKENS


def chat_text(tokens: PreTrainedTokenizerFast, row: Row) -> str:
    """The prompt up to where the assistant begins."""
    content = [{"type": "image"}, {"type": "text", "text": row.text}]
    return tokens.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def token_counter(tokens: PreTrainedTokenizerFast) -> Callable[[str], int]:
    """Counts a text's tokens."""
    return lambda text: len(tokens(text)["input_ids"])


def exactly(length: int, parts: Sequence[str], count: Callable[[str], int]) -> str:
    """The longest beginning of `parts` within `length` tokens, filled up with question marks.

    A question mark is one token: the tokenizer never saw one, so it learned no merge of it.

    Raises:
        ValueError: even no words at all are too long.
    """
    if length <= 0:
        return ""
    taken = bisect.bisect_right(range(len(parts) + 1), length, key=lambda n: count(" ".join(parts[:n]))) - 1
    text = " ".join(parts[: max(taken, 0)])
    text += "?" * (length - count(text))
    if count(text) != length:
        raise ValueError(f"no text of {length} tokens: the shortest has {count('')}, this one {count(text)}")
    return text

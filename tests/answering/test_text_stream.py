"""Reference: the whole text, decoded at once. Run: pytest tests/answering/test_text_stream.py."""

import random
from functools import partial
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from answering.text_stream import HALF, TextStream

TINY = Path(__file__).resolve().parents[2] / "configs/model/tiny_base"
WORDS = ("curve 48 degrees", " λ", "图像", "🫁", "é", "<think>", "</answer>", "\n", " ", "\x1b[2J", "\ufffd", "ß")


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(TINY)


@pytest.mark.parametrize("seed", range(40))
def test_the_pieces_are_the_whole_and_no_piece_ends_in_half_a_character(tokenizer, seed):
    draw = random.Random(seed)
    text = "".join(draw.choice(WORDS) for _ in range(draw.randrange(12)))
    end = tokenizer.eos_token_id
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], *([end] if seed % 2 else [])]
    pieces, stream = [], None
    stream = TextStream(partial(tokenizer.decode, skip_special_tokens=False), {end}, pieces.append)
    place = 0
    while place < len(ids):
        place += draw.choice((1, 1, 1, 2, 16))  # a card tells of several at a time
        stream(0, ids[:place])
    before_end = list(pieces)
    stream.close(text)
    assert "".join(pieces) == text
    assert not any(piece.endswith(HALF) for piece in before_end)
    assert all(pieces)

"""Reference: what a hostile model may write. A card is a picture of bounded size, whatever stands on it.

Run: pytest tests/callbacks/test_completion_cards.py.
"""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifacts.step_records import forget
from callbacks.completion_cards import PICTURE, WIDTH, draw_card, fitted, gold, right_answer, wrapped
from datamodules.batch import Example

HOSTILE = {
    "markup": "<img src=x onerror=alert(1)><script>alert(1)</script>[x](javascript:alert(1))",
    "control characters": "\x00\x07\x1b[31m\r\n\t\x7f\x85\u2028\u2029",
    "right to left": "\u202eTxeT\u202c שלום \u200f",
    "one line of a megabyte": "A" * 2**20,
    "a megabyte of lines": "a\n" * 2**19,
    "half a surrogate pair": "\ud800 and \udfff",
    "combining marks": "Z" + "\u0300" * 5000,
    "emoji": "👩‍⚕️🫀" * 500,
    "empty": "",
}


def example(image: Image.Image, question: str = "how long is the bar?", answer: str = "long") -> Example:
    return Example("p", (image,), question, ("short", answer), answer, "q")


def row(text: str) -> dict:
    reward = {"total": 1.1, "correct": 1.0, "format": 1.0, "adherence": None}
    return {
        "guideline": "bayesian",
        "completion": text,
        "reward": reward,
        "right": True,
        "gate": None,
        "advantage": -0.5,
    }


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_a_model_writes_is_drawn_as_text_of_bounded_size(kind):
    begin = time.monotonic()
    card = draw_card(example(Image.new("RGB", (56, 56))), [row(HOSTILE[kind])] * 4, "alpha, step 3")
    assert card.width == WIDTH
    assert card.height <= 1200
    assert time.monotonic() - begin < 5


def test_an_open_question_has_a_card_without_a_letter():
    closed = example(Image.new("RGB", (9, 9)))
    free = replace(closed, options=())
    assert (gold(closed), right_answer(closed)) == ("B", "B) long")
    assert (gold(free), right_answer(free)) == ("long", "long")
    assert draw_card(free, [{"guideline": "neutral", "completion": "long"}], "t").width == WIDTH


@pytest.mark.parametrize("kind", HOSTILE)
def test_questions_and_answers_are_bounded_too(kind):
    text = HOSTILE[kind] or "x"
    card = draw_card(example(Image.new("RGB", (9, 9)), f"q {text}", text), [row("fine")], "t")
    assert card.width == WIDTH
    assert card.height <= 20 * 12 * 17 + 1200


def test_a_card_shows_what_it_is_given():
    picture = Image.new("RGB", (56, 56), (255, 0, 0))
    one = np.asarray(draw_card(example(picture), [row("the bar is long")], "t"))
    other = np.asarray(draw_card(example(picture), [row("the bar is short")], "t"))
    assert one.shape == other.shape
    assert (one != other).any()
    assert (one[12:236, 12:236] == (255, 0, 0)).all()  # the picture, enlarged, on the left


def test_control_characters_become_visible_and_text_is_cut():
    # the escape, the line feed and the override become a mark each; nothing is left that moves a cursor
    assert wrapped("a\x1bb\nc\u202ed") == ["a␣b␣c␣d"]
    assert len(wrapped("word " * 10**5)) == 12
    assert wrapped("") == ["(empty)"]


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 3), (1000, 700)])
def test_pictures_of_any_shape_fit_into_their_square(size):
    picture = fitted(Image.new("RGB", size))
    assert max(picture.size) == PICTURE
    assert min(picture.size) >= 1


def test_records_from_a_step_on_are_forgotten(tmp_path):
    path = tmp_path / "samples.jsonl"
    assert forget(path, 3) is False
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (0, 2, 4, 6)) + '{"step": 8, "comp')
    assert forget(path, 4) is True
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 2]
    assert forget(path, 4) is False

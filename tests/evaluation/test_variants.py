# Reference: what each variant must keep and change, counted by hand. Run: pytest tests/evaluation/test_variants.py
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datamodules.batch import LETTERS, Example, load_image
from datamodules.prompts import WORDINGS, prompt_text, reworded
from evaluation.predictions import VARIED
from evaluation.variants import MOST_ORDERS, Variant, asked, rotated, variants
from tests.conftest import made_example, noise_image

MAIN = Variant()


def question(i, m=4, patient=None, images=1):
    options = tuple(f"text {k}" for k in range(m))
    pictures = tuple(noise_image(100 * i + k, 8 + i, 12) for k in range(images))
    answer = options[i % m] if m else "liver"
    return Example(patient or f"p{i}", pictures, f"which of {i}?", options, answer, f"q{i}")


def put(questions, variant, main=MAIN, pool=None):
    return list(asked(questions, variant, main, pool or questions))


def test_one_thing_at_a_time_and_the_main_way_first():
    made = variants(["none", "shown"], 2, 1)
    assert made == [
        Variant("none"),
        Variant("shown"),
        Variant("none", shuffle=1),
        Variant("none", shuffle=2),
        Variant("none", wording=1),
    ]
    assert [v.protocol for v in made[:3]] == [{"image": "none"}, {}, {"image": "none", "shuffle": "1"}]
    assert set(VARIED) == set(Variant.__dataclass_fields__)


def test_the_plain_question_is_left_alone():
    questions = [question(0), question(1, m=0), question(2, images=0)]
    assert put(questions, MAIN) == questions


def test_pictures_are_left_out_or_greyed_at_their_size():
    first = question(3, images=2)
    (bare,) = put([first], Variant("none"))
    assert bare == replace(first, images=())
    (grey,) = put([first], Variant("blank"))
    pictures = [load_image(source) for source in grey.images]
    assert [p.size for p in pictures] == [(12, 11), (12, 11)]
    assert all((np.asarray(p) == 128).all() for p in pictures)


def test_swapped_pictures_are_of_another_patient_and_the_same_every_time():
    # six questions of three patients: the pictures of one's own other question are no swap
    questions = [question(i, patient=f"p{i % 3}") for i in range(6)]
    owners = {id(q.images[0]): q.patient_id for q in questions}
    once, again = put(questions, Variant("swapped")), put(questions[::-1], Variant("swapped"), pool=questions)[::-1]
    for q, swapped in zip(questions, once, strict=True):
        assert owners[id(swapped.images[0])] != q.patient_id
        assert replace(swapped, images=q.images) == q
    assert [q.images[0] is r.images[0] for q, r in zip(once, again, strict=True)] == [True] * 6
    with pytest.raises(ValueError, match="no other patient of the set has a picture"):
        put([replace(q, patient_id="p") for q in questions], Variant("swapped"))


@pytest.mark.parametrize("m", range(2, len(LETTERS) + 1))
def test_all_rotations_bring_the_right_answer_to_every_letter_once(m):
    q = question(1, m)
    ways = [rotated(q, order) for order in range(m)]
    assert sorted(way.letter for way in ways) == list(LETTERS[:m])
    assert all(way.answer == q.answer and set(way.options) == set(q.options) for way in ways)
    for way in ways:  # a rotation: neighbours stay neighbours
        start = way.options.index(q.options[0])
        assert way.options[start:] + way.options[:start] == q.options


def test_questions_that_a_variant_does_not_change_are_not_asked_again():
    questions = [question(0, m=2), question(1, m=4), question(2, m=0), question(3, images=0)]

    def ids(variant, main=MAIN):
        return [q.question_id for q in put(questions, variant, main)]

    assert ids(Variant("none")) == ids(Variant("swapped")) == ["q0", "q1", "q2"]
    assert ids(Variant(shuffle=1)) == ["q0", "q1", "q3"]
    assert ids(Variant(shuffle=2)) == ids(Variant(shuffle=3)) == ["q1", "q3"]
    assert ids(Variant(shuffle=MOST_ORDERS)) == []
    assert ids(Variant(wording=1)) == ["q0", "q1", "q2", "q3"]
    assert ids(Variant("none"), Variant("none")) == ["q0", "q1", "q2", "q3"]  # the main way asks all


@pytest.mark.parametrize("number", range(1, len(WORDINGS) + 1))
def test_wordings_keep_stem_options_and_letters(number):
    closed, open_ = made_example(0), replace(made_example(1), options=(), answer="{wide}", question="why {0}?")
    for plain in (closed, open_):
        said = prompt_text(reworded(plain, number), "Think.")
        assert said != prompt_text(plain, "Think.")
        assert plain.question in said
        assert said.endswith("".join(f"\n{x}) {o}" for x, o in zip(LETTERS, plain.options, strict=False)) + "\nThink.")
    assert len({prompt_text(reworded(closed, n), "") for n in range(len(WORDINGS) + 1)}) == 1 + len(WORDINGS)


def test_a_picture_from_a_file_is_greyed_without_being_changed(tmp_path):
    Image.new("RGB", (5, 7), (1, 2, 3)).save(tmp_path / "a.png")
    (grey,) = put([replace(question(0), images=(tmp_path / "a.png",))], Variant("blank"))
    assert load_image(grey.images[0]).size == (5, 7)
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (1, 2, 3)

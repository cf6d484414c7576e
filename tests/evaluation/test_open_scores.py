"""Reference: by hand, after the scripts of SQuAD and MedEvalKit. Run: pytest tests/evaluation/test_open_scores.py."""

import pytest

from evaluation.open_scores import open_reading, open_rows
from evaluation.predictions import Prediction
from evaluation.tables import report


def answer(said, gold, number=0, model="m"):
    text = f"<think>seen</think><answer>{said}</answer>"
    return Prediction(model, "s", f"q{number}", f"p{number}", "neutral", (), "", text, answer=gold)


@pytest.mark.parametrize(
    ("said", "gold", "ours", "squad", "medevalkit"),
    [
        # (exact, F1); SQuAD drops punctuation and articles, MedEvalKit nothing but case
        ("left lung", "Left lung", (True, 1.0), (True, 1.0), (True, 1.0)),
        ("The left lung.", "left lung", (True, 1.0), (True, 1.0), (False, 0.4)),  # {the, left, lung.}: p 1/3, r 1/2
        ("lung", "left lung", (False, 2 / 3), (False, 2 / 3), (False, 2 / 3)),  # p 1, r 1/2
        ("right lung", "left lung", (False, 0.5), (False, 0.5), (False, 0.5)),
        # what SQuAD's punctuation rule takes away is the finding itself
        ("ER-", "ER+", (False, 0.5), (True, 1.0), (False, 0.0)),
        ("hepatitis", "hepatitis A", (False, 2 / 3), (True, 1.0), (False, 2 / 3)),
        ("lung lung lung", "lung", (False, 0.5), (False, 0.5), (False, 1.0)),  # a set of words counts one
        ("", "left lung", (False, 0.0), (False, 0.0), (False, 0.0)),
    ],
)
def test_exact_and_f1_by_hand(said, gold, ours, squad, medevalkit):
    item = answer(said, gold)
    for name, expected in {"ours": ours, "squad": squad, "medevalkit": medevalkit}.items():
        found = open_reading(item, name)
        assert (found.exact, round(found.f1, 9)) == (expected[0], round(expected[1], 9)), name


def test_free_answers_have_a_table_of_their_own_and_closed_ones_none():
    free = [answer("left lung", "left lung"), answer("lung", "left lung", 1)]
    (row,) = open_rows({"m": {"s": free}})
    # exact 1 of 2; F1 (1 + 2/3) / 2
    assert [cell.split()[0] for cell in row[3:5]] == ["50.0", "83.3"]
    assert "## Free answers" in report(free, (), ())
    closed = [Prediction("m", "s", "q", "p", "neutral", ("x", "y"), "A", "<think>a</think><answer>A</answer>")]
    assert "## Free answers" not in report(closed, (), ())

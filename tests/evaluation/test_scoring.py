# Reference: counts by hand; run with `pytest tests/evaluation/test_scoring.py`.
import csv
import io
import json
from dataclasses import replace

import pytest

from evaluation.matrix_table import matrix_csv, matrix_figure, matrix_text
from evaluation.scoring import Prediction, matrix, score
from evaluation.statistics import score_interval


def prediction(i, answer="A", gold="A", *, model="base", specialty="chest", **changes):
    text = f"<think>the heart is wide</think><answer>{answer}</answer>"
    made = Prediction(
        model, specialty, f"q{i}", f"p{i // 2}", "neutral", ("enlarged", "normal"), gold, text, n_tokens=10
    )
    return replace(made, **changes)


def test_score_by_hand():
    items = [
        prediction(0, "A", "A"),
        prediction(1, "B", "A"),
        prediction(2, "enlarged", "A"),
        prediction(3, "B", "B", truncated=True, n_tokens=30),
        prediction(4, "A", "B", completion="The answer is B."),  # right for the lenient reader only
        prediction(5, "A", "B", completion="cannot tell"),
    ]
    found = score(items)
    assert (found.n, found.correct_strict, found.accuracy) == (6, 3, 0.5)
    # patients have 1, 2 and 0 of 2 right: V = 2 / (1 - 1/3) / 36 = 1/12, of single questions 1/20; so worth 3.6 of them
    bounds = score_interval(0.5, 3.6, 4.302652729911275)  # Student's, 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx(bounds, abs=1e-9)
    apart = score([replace(item, patient_id=item.question_id) for item in items])
    assert apart.low > found.low
    assert apart.high < found.high
    assert found.accuracy_lenient == pytest.approx(4 / 6)
    assert found.parse_rate == pytest.approx(4 / 6)
    assert (found.truncated, found.mean_tokens) == (pytest.approx(1 / 6), pytest.approx(80 / 6))
    assert found.letters == {"A": (2, 3), "B": (2, 3)}
    assert found.reasons == {"letter": 3, "no_think": 2, "option_text": 1}


def test_score_does_not_depend_on_the_order():
    items = [prediction(i, "AB"[i % 2], "AB"[i % 3 == 0]) for i in range(20)]
    assert score(items) == score(items[::-1])


def test_score_refuses_nothing_and_duplicates():
    with pytest.raises(ValueError, match="no predictions"):
        score([])
    with pytest.raises(ValueError, match="answered twice"):
        score([prediction(0), prediction(0, "B")])
    assert score([prediction(0), prediction(0, guideline="bayesian")]).n == 2


def test_json_lines_come_back():
    made = prediction(3, tags={"kind": "grade"}, completion='line\nbreak "ü" \u2028', truncated=True)
    line = made.to_json()
    assert "\n" not in line
    assert Prediction.from_json(line) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "expected the keys"),
        ({"model": None}, "model must be a str"),
        ({"options": "AB"}, "options must be a list"),
        ({"truncated": 1}, "truncated must be a bool"),
        ({"n_tokens": True}, "n_tokens must be a int"),
        ({"answer_letter": "C"}, "not one of"),
        ({"answer_letter": ""}, "not one of"),
    ],
)
def test_bad_json_lines_are_refused(change, message):
    row = json.loads(prediction(0).to_json()) | change
    with pytest.raises(ValueError, match=message):
        Prediction.from_json(json.dumps(row), "predictions.jsonl:7")


def test_truncated_files_are_named():
    for line in (prediction(0).to_json()[:-9], "[]", "3"):
        with pytest.raises(ValueError, match=r"predictions.jsonl:7"):
            Prediction.from_json(line, "predictions.jsonl:7")


def two_models():
    rows = [prediction(i, "A", "AB"[i % 2]) for i in range(4)]
    rows += [prediction(i, "AB"[i % 2], "AB"[i % 2], model="expert") for i in range(4)]
    rows += [prediction(i, "A", "A", specialty="skin", model=m) for i in range(2) for m in ("base", "expert")]
    return rows


def test_matrix_by_hand():
    base, expert = matrix(two_models())
    assert (base.model, base.cells["chest"].accuracy, base.cells["skin"].accuracy, base.macro) == (
        "base",
        0.5,
        1.0,
        0.75,
    )
    assert (expert.model, expert.cells["chest"].accuracy, expert.macro) == ("expert", 1.0, 1.0)
    assert list(base.cells) == ["chest", "skin"]


def test_a_missing_cell_is_blank_and_has_no_macro():
    rows = matrix([*two_models(), *(prediction(i, model="only chest", gold="AB"[i % 2]) for i in range(4))])
    assert rows[2].macro is None
    assert "skin" not in rows[2].cells
    assert matrix_csv(rows).splitlines()[3].endswith(",,,,,,")
    assert matrix_text(rows).splitlines()[-1].split()[-2:] == ["-", "-"]


def test_different_questions_are_refused():
    for change in ({"question_id": "other"}, {"options": ("normal", "enlarged")}):
        items = two_models()
        items[0] = replace(items[0], **change)
        with pytest.raises(ValueError, match="different questions"):
            matrix(items)
    with pytest.raises(ValueError, match="different questions"):
        matrix(two_models()[1:])
    with pytest.raises(ValueError, match="no predictions"):
        matrix([])


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(matrix_csv(matrix(two_models())))))
    low, high = score_interval(0.5, 4, 12.706204736432095)  # two patients: Student's, 1 degree of freedom
    assert rows[0]["model"] == "base"
    assert (rows[0]["chest/accuracy"], rows[0]["chest/n"], rows[0]["macro/accuracy"]) == ("0.500000", "4", "0.750000")
    assert (float(rows[0]["chest/low"]), float(rows[0]["chest/high"])) == pytest.approx((low, high), abs=1e-6)


def test_text_is_aligned_and_says_n():
    text = matrix_text(matrix(two_models()))
    assert "50.0 [0.6, 99.4]" in text  # as in the CSV
    header, sizes, *rows = text.splitlines()
    assert header.split() == ["model", "chest", "skin", "macro"]
    assert sizes.split() == ["n", "=", "4", "n", "=", "2"]
    end = header.index("chest") + len("chest")
    assert sizes[:end].endswith("n = 4")
    assert all(row[:end].endswith("]") for row in rows)


def test_figure_shows_every_number():
    pytest.importorskip("matplotlib")
    figure = matrix_figure(matrix(two_models()))
    figure.canvas.draw()
    texts = [item.get_text() for item in figure.axes[0].texts]
    assert len(texts) == 2 * 3
    assert texts[0].startswith("50.0")
    assert texts[2] == "75.0"
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["base", "expert"]

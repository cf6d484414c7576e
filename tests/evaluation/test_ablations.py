# Reference: counts by hand. Run: pytest tests/evaluation/test_ablations.py
import math
from dataclasses import replace

import pytest

from evaluation.ablations import ablation, consistency
from evaluation.compare import load_systems, refuse_unlike
from evaluation.matrix_table import matrix_csv
from evaluation.predictions import Prediction, by_variant
from evaluation.rescore import main as rescore
from evaluation.scoring import matrix, score
from evaluation.several import several

OPTIONS = ("enlarged", "normal")


def said(i, letter, *, options=OPTIONS, gold="enlarged", **changes):
    text = f"<think>the heart is wide</think><answer>{letter}</answer>" if letter else "no idea"
    made = Prediction(
        "base", "chest", f"q{i}", f"p{i}", "neutral", options, "AB"[options.index(gold)], text, {"modality": "CT"}
    )
    return replace(made, **changes)


def run(letters, **changes):
    return [said(i, letter, **changes) for i, letter in enumerate(letters)]


def test_an_ablation_by_hand():
    # shown: right, right, wrong, unread; blank: right, wrong, wrong, unread -> 1/4 lost; two of four answer the same
    found = ablation(run(["A", "A", "B", ""]), run(["A", "B", "B", ""], protocol={"image": "blank"}))
    assert (found.n, found.accuracy_main, found.accuracy, found.difference) == (4, 0.5, 0.25, -0.25)
    assert (found.same, found.p) == (0.5, 1.0)
    assert found.low <= -0.25 <= found.high


def test_a_variant_on_fewer_questions_is_compared_on_these_alone():
    found = ablation(run(["A", "B", "A"]), [said(1, "A", protocol={"image": "none"})])
    assert (found.n, found.accuracy_main, found.accuracy) == (1, 0.0, 1.0)
    with pytest.raises(ValueError, match="2 answers of the variant, of which 1 have a partner"):
        ablation(run(["A"]), run(["A", "A"]))


def test_orders_by_hand():
    # q0 sticks to the text (A, then B): right twice. q1 sticks to the letter A: right, then wrong, the text changes.
    main = run(["A", "A", "B"])
    turned = [said(0, "B", options=OPTIONS[::-1]), said(1, "A", options=OPTIONS[::-1])]
    found = consistency(main, [turned])
    assert (found.n, found.accuracies, found.changed, found.always) == (2, (1.0, 0.5), 0.5, 0.5)
    assert found.letters == {"A": (3, 2), "B": (1, 2)}


def test_no_question_in_every_order():
    found = consistency(run(["A"]), [[]])
    assert found.n == 0
    assert math.isnan(found.changed)


def test_open_answers_are_compared_after_normalising():
    def open_(text, **changes):
        base = said(0, "A", **changes)
        return replace(base, options=(), answer_letter="", answer="Left lung", completion=text)

    tags = "<think>there it is</think><answer>{}</answer>"
    one, other = open_(tags.format("the left lung.")), open_(tags.format("Left  Lung"), protocol={"wording": "1"})
    found = ablation([one], [other])
    assert (found.accuracy_main, found.accuracy, found.same) == (1.0, 1.0, 1.0)
    assert several([one]).vote == 1.0
    assert score([one]).letters == {}


def test_the_matrix_is_of_the_main_way_and_the_rest_stands_beside_it(tmp_path, capsys):
    main = run(["A", "B", "A"], protocol={"temperature": "0.7"})
    none = run(["B", "B", "A"], protocol={"temperature": "0.7", "image": "none"})
    turned = run(["A", "B", "A"], options=OPTIONS[::-1], protocol={"temperature": "0.7", "shuffle": "1"})
    parts = by_variant([*main, *none, *turned])
    assert {label: len(items) for label, items in parts.items()} == {"": 3, "image=none": 3, "shuffle=1": 3}
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir(parents=True)
    lines = "".join(item.to_json() + "\n" for item in (*main, *none, *turned))
    (folder / "predictions.jsonl").write_text(lines, "utf-8")
    (folder / "matrix.csv").write_text(matrix_csv(matrix(main)), "utf-8")
    assert rescore([str(tmp_path / "run"), "--check"]) == 0
    printed = capsys.readouterr().out
    # none loses q0 of three; the other order repeats the letters, so that all texts change and nothing is right twice
    assert "| base | chest | image=none | 3 | 66.7 | 33.3 | -33.3 [" in printed
    assert "| base | chest | shuffle=1 | 3 | 66.7 | 33.3 | -33.3 [" in printed
    assert "| base | chest | 3 | 66.7, 33.3 | 100.0 | 0.0 | A 4/3, B 2/3 |" in printed
    assert [system.name for system in load_systems([tmp_path / "run"])] == ["base"]
    first, second, third = load_systems([tmp_path / "run"], ["base", "base@*"])
    assert (second.name, third.name) == ("base@image=none", "base@shuffle=1")
    for other, key in ((second, "image"), (third, "shuffle")):
        with pytest.raises(ValueError, match=f"protocols differ: {key}"):
            refuse_unlike(first, other)
        refuse_unlike(first, other, [key])


def test_several_answers_to_a_question_do_not_narrow_its_interval():
    # five questions answered alike four times each: as uncertain as five answers, not as twenty
    rows = [said(i, "AB"[i % 2], sample=k) for i in range(5) for k in range(4)]
    many, few = score(rows), score([row for row in rows if row.sample == 0])
    assert (many.n, many.accuracy) == (20, 0.6)
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.15)


def test_guidelines_vote_without_the_neutral_prompt():
    def under(names, letters):
        return [said(0, letter, guideline=name) for name, letter in zip(names, letters, strict=True)]

    # neutral, and a tie that the first named guideline decides: B. With one guideline beside it, neutral votes too.
    assert several(under(["neutral", "intuitive", "bayesian"], "ABA")).vote == 0.0
    assert several(under(["neutral", "intuitive", "bayesian"], "BAB")).vote == 1.0
    assert several(under(["neutral", "bayesian"], "AB")).vote == 1.0

# Reference: readings by hand, and the table that ships with the command. Run: pytest tests/evaluation/test_readings.py
import re

import pytest

from evaluation import compare
from evaluation.answers import VERSION, extract
from evaluation.predictions import Prediction
from evaluation.readings import main

LUNG = ("Tuberculosis", "Sarcoidosis", "Lung abscess", "Pneumothorax")


def answer(completion, question="q0", version=VERSION):
    return Prediction("base", "chest", question, question, "neutral", LUNG, "B", completion, score_version=version)


def test_the_table_is_read_as_it_says(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^strict +reads \d+ of (\d{3,})$", printed, re.MULTILINE)
    assert "EXPECTED" not in printed


def test_a_row_read_otherwise_comes_first_and_fails(tmp_path, capsys):
    table = tmp_path / "mine.yaml"
    table.write_text(
        "- options: [Tuberculosis, Sarcoidosis]\n  rows:\n"
        '    - ["<think>x</think><answer>B</answer>", B, B]\n'
        '    - ["A chest CT would be best. Answer B", A]\n'
        '    - ["Neither \\e[2J fits"]\n'
    )
    assert main([str(table)]) == 1
    first, cells, *rest = capsys.readouterr().out.splitlines()
    assert first == "A chest CT would be best. Answer B"
    assert "strict (no_think)  lenient B  medxpertqa A" in cells
    assert "EXPECTED {'lenient': 'A', 'strict': '(no_think)'}" in cells
    assert "\x1b" not in "".join(rest)
    assert rest[-1] == "1 rows are not read as the table expects"


def test_answers_of_an_experiment_are_shown_by_disagreement(tmp_path, capsys):
    file = tmp_path / "predictions.jsonl"
    agreed = answer("<think>x</think><answer>B</answer>")
    apart = answer("A chest CT would be best. Answer B", "q1")
    free = Prediction("base", "chest", "q2", "p", "neutral", (), "", "The answer is left.", answer="left")
    file.write_text("".join(item.to_json() + "\n" for item in (agreed, apart, free)), encoding="utf-8")
    assert main([str(file), "--limit", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("A chest CT would be best. Answer B\n    strict (no_think)  lenient B  medxpertqa A")
    assert "right B  [base q1]" in printed
    assert "… and 2 more" in printed
    assert "strict     reads 1 of 3" in printed
    assert "lenient    reads 3 of 3" in printed


@pytest.mark.parametrize(
    "content", ["just words", "- options: [a, b]", "- options: [a, b]\n  rows: [[a, b, c, d]]", "\t"]
)
def test_a_file_of_another_form_is_named(tmp_path, capsys, content):
    table = tmp_path / "mine.yaml"
    table.write_text(content)
    assert main([str(table)]) == 2
    assert str(table) in capsys.readouterr().err


DRESSED = [
    "{}.",
    "({})",
    "**{}**",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    '"{}"',
    "{})",
    "_{}_",
    "`{}`",
    "[{}]",
    "{}:",
]


@pytest.mark.parametrize("dress", DRESSED)
def test_a_dressed_letter_is_the_letter_for_reward_and_score(dress):
    for letter, text in zip("ABCD", LUNG, strict=True):
        for inside in (letter, f"{letter}. {text}", f"{letter}: {text.lower()}"):
            read = extract(f"<think>x</think><answer>{dress.format(inside)}</answer>", LUNG)
            assert read.letter == letter, inside


@pytest.mark.parametrize(
    "inside", ["A or B", "A, B", "not B", "B?", "AB", "B because", "the letter B", "B A", "(A)(B)"]
)
def test_more_than_a_letter_is_none(inside):
    assert extract(f"<think>x</think><answer>{inside}</answer>", LUNG).letter is None


def test_answers_beside_scores_of_another_version_are_not_compared(tmp_path, capsys):
    for name, version in (("old", ""), ("new", VERSION)):
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        rows = [answer(f"<think>{name}</think><answer>B</answer>", f"q{i}", version) for i in range(4)]
        (folder / "predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    both = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert compare.main(both) == 2
    assert f"score_version before 6 and {VERSION}" in capsys.readouterr().err
    assert compare.main([*both, "--vary", "score_version"]) == 0

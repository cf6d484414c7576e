"""Reference: tables made from a seed; the command must propose the reading that gives back their rows.

Run: pytest tests/datamodules/test_new_table.py. Every test calls the command's own `main`.
"""

import csv
import random

import pytest
import yaml

from datamodules.__main__ import main
from datamodules.base import SPLITS
from tests.datamodules.made_tables import ANSWERS, FILES, OPTIONS, made_table
from tests.datamodules.test_table import read, table_of, truth


def new(folder, table, *words):
    """(exit code, what was written) of the command."""
    out = folder / "out" / "dental.yaml"
    code = main(
        ["new", "dental", "--from", str(table), "--out", str(out), "--sheet", str(folder / "sheet.png"), *words]
    )
    return code, yaml.safe_load(out.read_text("utf-8")) if out.exists() else None


def settings_in(content):
    return content["specialties"]["dental"]["init_args"]


@pytest.mark.parametrize("seed", range(6))
def test_the_proposal_reads_the_rows_that_were_written(seed, tmp_path, capsys):
    draw = random.Random(f"new {seed}")
    form, options, answer = draw.choice(FILES), OPTIONS[seed % len(OPTIONS)], draw.choice(ANSWERS)
    made = made_table(tmp_path / "t", 50 + seed, form, options, answer)
    words = [f"separator={made.settings['separator']!r}"] if options == "separator" else []
    words += ["columns.options=[Options]"] if options == "separator" else []
    _, content = new(tmp_path, made.path, *words)
    said = capsys.readouterr().out
    found = settings_in(content)
    assert found["answer_as"] == answer, (form, options, answer)
    assert found["columns"] == made.settings["columns"]
    assert read(table_of(found)) == truth(made), (form, options, answer)
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert f"t/{made.path.name}: 12 rows" in said
    assert "its name; 6 patients in 12 rows" in said
    assert "12 read +" in said  # the check ran


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_a_file_that_is_there_is_never_written_over(tmp_path, capsys):
    made = made_table(tmp_path / "t", 1, "comma", "columns", "letter")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dental.yaml").write_text("mine\n")
    assert new(tmp_path, made.path) == (2, "mine")
    assert "is there already, and is not written over" in capsys.readouterr().err


def test_numbers_that_may_count_from_0_or_from_1_are_asked_about(tmp_path, capsys):
    rows = [(f"is it {n}?", "x", "y", "z", 1 + n % 2) for n in range(30)]
    path = write(tmp_path / "t.csv", ("question", "option 1", "option 2", "option 3", "answer"), rows)
    assert new(tmp_path, path) == (2, None)
    said = capsys.readouterr().err
    assert "in row 1 the right option is then 'y' or 'x'" in said
    assert "answer_as=index_from_0 or answer_as=index_from_1" in said
    _, content = new(tmp_path, path, "answer_as=index_from_1")
    assert settings_in(content)["answer_as"] == "index_from_1"
    rows[3] = (*rows[3][:4], 3)  # of three options the third, so that nobody counts from 0
    again = write(tmp_path / "u.csv", ("question", "option 1", "option 2", "option 3", "answer"), rows)
    (tmp_path / "out" / "dental.yaml").unlink()
    assert settings_in(new(tmp_path, again)[1])["answer_as"] == "index_from_1"


def test_labels_that_differ_in_case_alone_are_one_choice(tmp_path):
    rows = [(f"wide {n}?", ("yes", "No", "yes", "NO", "Yes", "No")[n % 6]) for n in range(36)]
    _, content = new(tmp_path, write(tmp_path / "t.csv", ("question", "answer"), rows))
    found = settings_in(content)
    assert found["choices"] == ["No", "yes"]  # the commonest spelling of each
    data = table_of(found)
    held = {example.question: example for split in SPLITS for example in data.scan.examples[split]}
    assert {(question, held[question].answer) for question, _ in rows} == {
        (question, {"no": "No", "yes": "yes"}[answer.casefold()]) for question, answer in rows
    }


def test_a_table_of_labels_becomes_questions_and_says_what_it_assumed(tmp_path, capsys):
    made = made_table(tmp_path / "t", 2, "comma", "columns", "letter")
    rows = [(row.image.removesuffix(".png"), ("caries", "healthy")[n % 2]) for n, row in enumerate(made.rows)]
    _, content = new(tmp_path, write(tmp_path / "t" / "labels.csv", ("image", "label"), rows))
    found, said = settings_in(content), capsys.readouterr().out
    assert (found["choices"], found["image_suffix"], found["images"]) == (["caries", "healthy"], ".png", "films")
    assert "UNSURE: ask:" in said
    assert "UNSURE: choices:" in said
    assert "each picture counts as a patient of its own" in said
    assert "DSA teaches the answers alone" in said


@pytest.mark.parametrize(
    ("header", "row", "words", "message"),
    [
        (("a", "b"), ("x", "y"), (), "no column is called answer, label or the like; there are 'a', 'b'"),
        (("x", "answer"), ("u", "v"), (), "no column is called question or holds questions"),
        (("question", "A", "B", "answer"), ("q?", "x", "y", "z"), (), "do not fit each other"),
        (("question", "answer"), ("q?", "x"), ("columns.answer=ansr",), "there is no column 'ansr'"),
        (
            ("question", "answer"),
            ("q?", "x"),
            ("columns.anser=answer",),
            "there is no columns.anser; did you mean 'answer'?",
        ),
        (("question", "answer"), ("q?", "x"), ("on_bad_row=maybe",), "on_bad_row"),
        (("question", "answer"), ("q?", "x"), ("columns.options=[[1]]",), "expected the name of a column"),
        (("question", "answer"), ("q?", "x"), ("columns=3",), "expected the name of a column"),
        (("question", "question"), ("q?", "x"), (), "names 'question' twice"),
    ],
)
def test_where_nothing_can_be_proposed_nothing_is_written(header, row, words, message, tmp_path, capsys):
    path = write(tmp_path / "t.csv", header, [row] * 12)
    assert new(tmp_path, path, *words) == (2, None)
    assert message in capsys.readouterr().err


def test_nothing_that_is_printed_acts_on_the_terminal(tmp_path, capsys):
    path = write(tmp_path / "t.csv", ("question", "an\x1b[31mswer", "answer"), [("q?", "\x1b[2J", "x")] * 12)
    new(tmp_path, path)
    said = capsys.readouterr()
    assert all(line.isprintable() for line in (said.out + said.err).split("\n"))


@pytest.mark.parametrize("name", ["../x", "a.b", "", "merged"])
def test_a_name_that_no_folder_may_have_is_refused(name, tmp_path, capsys):
    path = write(tmp_path / "t.csv", ("question", "answer"), [("q?", "x")] * 12)
    assert main(["new", name, "--from", str(path), "--out", str(tmp_path / "o.yaml")]) == 2
    assert not (tmp_path / "o.yaml").exists()

"""Reference: tables that are made from a seed, so that their rows are known whatever they are written like.

Run: pytest tests/datamodules/test_table.py.
"""

import csv
import io
import json
import random
import sys
from collections import Counter
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial

import pytest
from PIL import Image

from configs.build import build
from configs.schema import Component
from datamodules.base import SPLITS
from datamodules.batch import BadExampleError, load_image
from datamodules.cells import Cells
from datamodules.columns import Columns
from datamodules.prompts import NEUTRAL
from datamodules.rows import Record
from datamodules.stored_cells import class_names, plain_cells, written_features
from datamodules.table import Table
from tests.datamodules.made_tables import ANSWERS, FILES, OPTIONS, made_table


def table_of(settings, **more):
    options = {"shuffle_options": False, "val_fraction": 0.0, **settings, **more}
    return build(Component("datamodules.table.Table", options), specialty="s")


def read(table):
    """Every question as the truth has it."""
    held = [example for split in SPLITS for example in table.splits[split]]
    return sorted(
        (e.patient_id, e.images[0].name, e.question, e.options, e.answer, dict(e.reasoning), dict(e.tags)) for e in held
    )


def truth(made):
    rows = []
    for row in made.rows:
        answer = row.options[row.right]
        reasoning = {"differential": row.chain} if row.chain else {NEUTRAL: f"so the answer is {answer}."}
        rows.append((row.patient, row.image, row.question, row.options, answer, reasoning, {"question_type": row.kind}))
    return sorted(rows)


@pytest.mark.parametrize("form", FILES)
def test_a_table_has_the_same_rows_whatever_it_is_written_like(form, tmp_path):
    draw = random.Random(form)
    for seed, options in enumerate(OPTIONS):
        answer = draw.choice(ANSWERS)
        made = made_table(tmp_path / str(seed), seed, form, options, answer)
        table = table_of(made.settings)
        assert read(table) == truth(made), (form, options, answer)
        count = table.scan.all_rows
        assert (count.read, count.bad, count.unread) == (len(made.rows), 0, 0)
        assert count.rows == count.read + count.left_out


def write(root, header, *rows, name="questions.csv"):
    root.mkdir(exist_ok=True)
    with open(root / name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return root


LETTERED = ("q", "A", "B", "C", "answer")
COLUMNS = {"question": "q", "options": ["A", "B", "C"], "answer": "answer"}
HOSTILE = [
    (("wide?", "x", "y", "z", "D"), "letter", "label is 'D', which is none of the options A, B, C"),
    (("wide?", "x", "y", "", "C"), "letter", "label is 'C', which is none of the options A, B"),
    (
        ("wide?", "x", "y", "z", "2"),
        "letter",
        "answer is 2, expected a letter; if it counts the options, set",
    ),
    (("wide?", "x", "y", "z", "B) x"), "letter", "which of them is right?"),
    (("wide?", "x", "y", "z", "x"), "letter", "label is 'x', which is none of the options"),
    (("wide?", "x", "y", "z", "y!"), "text", "'y!' is not among the options"),
    (("wide?", "x", "y", "z", "0"), "index_from_1", "answer is 0, and there are the options 1, 2, 3 (index_from_1)"),
    (("wide?", "x", "y", "z", "3"), "index_from_0", "answer is 3, and there are the options 0, 1, 2 (index_from_0)"),
    (("wide?", "x", "y", "z", "1.5"), "index_from_0", "expected a number that counts the options"),
    (("wide?", "x", "y", "z", "1,000"), "index_from_1", "expected a number that counts the options"),
    (("wide?", "x", "#REF!", "z", "A"), "letter", "B is the spreadsheet's error #REF!; mend its formula"),
    (("wide?", "x", "x", "z", "A"), "letter", "options repeat"),
    (("wide?", "x", "", "", "A"), "letter", "got 1 options, expected 2 to 10"),
    (("", "x", "y", "z", "A"), "letter", "q is missing or empty"),
    (("wide?", "x", "y", "z", ""), "letter", "answer is missing or empty"),
    (("wide?", "x", "y", "z"), "letter", "line 3: has 4 fields, and the header has 5"),
    (("wide?", "x", "y", "z", "A", "B"), "letter", "line 3: has 6 fields, and the header has 5"),
]


@pytest.mark.parametrize(("row", "kind", "message"), HOSTILE)
def test_what_is_ambiguous_or_wrong_is_refused_with_its_row(row, kind, message, tmp_path):
    good = {"letter": "b", "text": "y", "index_from_0": "1.0", "index_from_1": "2"}[kind]
    root = write(tmp_path / "t", LETTERED, ("narrow?", "x", "y", "z", good), row, ("high?", "x", "y", "z", good))
    scan = table_of({"root": str(root), "answer_as": kind, "columns": COLUMNS}).scan
    assert [(fault.row, message in fault.reason) for fault in scan.faults] == [(2, True)], scan.faults
    held = [example for split in SPLITS for example in scan.examples[split]]
    assert [example.answer for example in held] == ["y", "y"]


@pytest.mark.parametrize("cell", ["1.23457E+11", "9,9E+12"])
def test_a_patient_whose_number_a_spreadsheet_shortened_is_refused(cell, tmp_path):
    root = write(tmp_path / "t", ("pat", *LETTERED), (cell, "wide?", "x", "y", "z", "A"))
    settings = {"root": str(root), "answer_as": "letter", "columns": COLUMNS | {"patient": "pat"}}
    (fault,) = table_of(settings).scan.faults
    assert "its digits are lost" in fault.reason


def test_what_stands_for_one_patient_is_one_patient(tmp_path, capsys):
    cells = ["7", "7.0", '="7"', " 7 ", "7,0"]
    root = write(tmp_path / "t", ("pat", *LETTERED), *((cell, f"{cell}?", "x", "y", "z", "A") for cell in cells))
    table = table_of({"root": str(root), "answer_as": "letter", "columns": COLUMNS | {"patient": "pat"}})
    held = [example for split in SPLITS for example in table.scan.examples[split]]
    assert {example.patient_id for example in held} == {"7"}
    assert "column 'pat': numbers such as 3.0 are whole (2 cells)" in table.assumptions()


def test_a_column_that_is_not_there_is_told_once_with_what_there_is(tmp_path):
    root = write(tmp_path / "t", LETTERED, *(("wide?", "x", "y", "z", "A") for _ in range(5)))
    table = table_of({"root": str(root), "answer_as": "letter", "columns": COLUMNS | {"answer": "answr"}})
    with pytest.raises(BadExampleError) as error:
        _ = table.splits
    assert "5 of 5 rows were not read" in str(error.value)
    assert "there is no column 'answr'" in str(error.value)
    assert "did you mean 'answer'?" in str(error.value)


@pytest.mark.parametrize("name", ["../out.png", "/etc/x.png", "a/../../out.png", "C:\\x.png", "https://x/y.png"])
def test_no_name_of_a_picture_leaves_the_folder(name, tmp_path):
    root = write(tmp_path / "t", ("film", *LETTERED), (name, "wide?", "x", "y", "z", "A"))
    (tmp_path / "out.png").write_bytes(b"")
    table = table_of({"root": str(root), "answer_as": "letter", "columns": COLUMNS | {"images": ["film"]}})
    (fault,) = table.scan.faults
    assert "outside the root" in fault.reason or "expected the name of a file" in fault.reason


def test_pictures_in_one_cell_by_windows_names_and_without_suffix(tmp_path):
    (tmp_path / "p" / "x").mkdir(parents=True)
    for name in ("a.png", "b; c.png", "x/d.png"):
        (tmp_path / "p" / name).write_bytes(b"")
    cells = {"a": ["a.png"], "a; a.png": ["a.png", "a.png"], "b; c": ["b; c.png"], "x\\d": ["x/d.png"], "": []}
    root = write(tmp_path / "t", ("film", *LETTERED), *((c, f"{n}?", "x", "y", "z", "A") for n, c in enumerate(cells)))
    settings = {"root": str(root), "answer_as": "letter", "images": str(tmp_path / "p"), "image_suffix": ".png"}
    scan = table_of({**settings, "columns": COLUMNS | {"images": ["film"]}}).scan
    held = {e.question: e.images for split in SPLITS for e in scan.examples[split]}
    found = {f"{n}?": [i.relative_to(tmp_path / "p").as_posix() for i in held[f"{n}?"]] for n in range(len(cells))}
    assert list(found.values()) == list(cells.values())


def test_options_of_all_rows_and_a_question_of_all_rows(tmp_path):
    root = write(tmp_path / "t", ("film", "label"), *((f"{n}.png", ("caries", "healthy")[n % 2]) for n in range(8)))
    columns = {"question": "", "answer": "label", "images": ["film"]}
    settings = {"root": str(root), "ask": "Which?", "choices": ["caries", "healthy"], "columns": columns}
    scan = table_of(settings).scan
    held = [example for split in SPLITS for example in scan.examples[split]]
    assert {(e.question, e.options) for e in held} == {("Which?", ("caries", "healthy"))}
    assert sorted(e.answer for e in held) == ["caries"] * 4 + ["healthy"] * 4


def test_rows_name_their_split_and_others_are_split_by_patient(tmp_path):
    rows = [(f"p{n}", ("Train", "valid", "testing")[n % 3], f"{n}?", "x", "y", "z", "A") for n in range(9)]
    root = write(tmp_path / "t", ("pat", "fold", *LETTERED), *rows, ("p9", "holdout", "9?", "x", "y", "z", "A"))
    columns = COLUMNS | {"patient": "pat", "split": "fold"}
    table = table_of({"root": str(root), "answer_as": "letter", "columns": columns, "on_bad_row": "skip"})
    assert {split: len(held) for split, held in table.splits.items()} == {"train": 3, "val": 3, "test": 3}
    (fault,) = table.scan.faults
    assert "fold is 'holdout', expected one of train" in fault.reason


def test_a_guideline_column_says_which_a_chain_follows(tmp_path):
    header = (*LETTERED, "chain", "how")
    rows = [("1?", "x", "y", "z", "A", "it is round.", "Bayesian"), ("2?", "x", "y", "z", "A", "", "")]
    root = write(tmp_path / "t", header, *rows)
    columns = COLUMNS | {"reasoning": {NEUTRAL: "chain"}, "guideline": "how"}
    scan = table_of({"root": str(root), "answer_as": "letter", "columns": columns, "answer_only": False}).scan
    held = {e.question: dict(e.reasoning) for split in SPLITS for e in scan.examples[split]}
    assert held == {"1?": {"bayesian": "it is round."}, "2?": {}}


def test_answers_alone_are_taught_under_the_neutral_prompt_and_counted(tmp_path):
    rows = [(f"{n}?", "x", "y", "z", "B", "it is round." if n % 2 else "") for n in range(30)]
    root = write(tmp_path / "t", (*LETTERED, "chain"), *rows)
    columns = COLUMNS | {"reasoning": {"analytical": "chain"}}
    settings = {"root": str(root), "answer_as": "letter", "columns": columns}
    table = table_of(settings)
    taught = table.taught()
    alone = [row for row in table.rows() if "so the answer is" in row[2]]
    assert {(guideline, text) for _, guideline, text in alone} == {
        (NEUTRAL, "<think>so the answer is y.</think><answer>B</answer>")
    }
    assert taught["answers_alone"] == len(alone) > 0
    assert len(table.rows()) == len(alone) + 2 * taught["chains"]
    left = table_of(settings, answer_only=False)
    assert left.taught() == {"chains": taught["chains"], "answers_alone": 0, "not_imitated": len(alone)}
    assert len(left.rows()) == 2 * taught["chains"]


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        ("pyarrow", "questions.parquet", "Parquet files need the package pyarrow: pip install pyarrow"),
        ("datasets", "saved", "the folder saved needs the package datasets (pip install datasets)"),
    ],
)
def test_a_package_that_is_missing_is_one_clear_error(package, name, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.parquet", None)
    path = tmp_path / name
    path.write_bytes(b"PAR1") if path.suffix else path.mkdir()
    with pytest.raises(BadExampleError, match="specialty 's'") as error:
        _ = table_of({"root": str(tmp_path), "file": name, "columns": COLUMNS, "answer_as": "letter"}).splits
    assert message in str(error.value)


def png(shade):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


VALUES = {
    3.0: "3", -2: "-2", 2.5: "2.5", Decimal("3.00"): "3", Decimal("3.50"): "3.50", date(2024, 5, 1): "2024-05-01",
    datetime(2024, 5, 2): "2024-05-02", datetime(2024, 5, 1, 7, 30): "2024-05-01 07:30:00", time(7, 30): "07:30:00",
}  # fmt: skip


def test_values_with_types_are_read_as_a_spreadsheet_of_them():
    held = {str(number): value for number, value in enumerate([*VALUES, True, False, float("nan"), None])}
    cells = Cells(Record("t.parquet", 1, held), Counter())
    found = [cells.text(column, "") for column in held]
    assert found == [*VALUES.values(), "true", "false", "", ""]


def test_stored_cells_are_as_other_files_have_them():
    told = {
        "label": {"names": ["caries", "healthy"], "_type": "ClassLabel"},
        "q": {"dtype": "string", "_type": "Value"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": told}}).encode()}
    assert written_features(metadata) == told
    for damaged in (None, {}, {b"huggingface": b"{"}, {b"huggingface": b"[1]"}, {b"pandas": b"{}"}):
        assert class_names(written_features(damaged)) == {}
    pictures = [
        png(1),
        {"bytes": png(2), "path": None},
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": None},
    ]
    fields = {"label": 1, "q": b"wide?", "film": pictures[0], "films": pictures, "opts": {"A": "x", "B": None}}

    def made(column, content, place):
        return column, place, content

    found = plain_cells(fields, class_names(told), made)
    assert found["films"] == [("films", 0, png(1)), ("films", 1, png(2)), "a.png", None]
    assert {name: found[name] for name in ("label", "q", "film", "opts")} == {
        "label": "healthy", "q": "wide?", "film": ("film", -1, png(1)), "opts": fields["opts"],
    }  # fmt: skip
    for number in (-1, 2, None):  # -1 is how `datasets` writes that there is no label
        assert plain_cells({"label": number}, class_names(told), made) == {"label": None}


ERRORS = (
    "#N/A #NV #N/D #REF! #BEZUG! #RIF! #VALUE! #WERT! #VALEUR! #DIV/0! #¡DIV/0! #NAME? #NOM? #¿NOMBRE? #NÚM! #CALC!"
)


@pytest.mark.parametrize("cell", [*ERRORS.split(), "#1", "#Ref!", "#", "# 3!", "#hash?"])
def test_a_spreadsheet_s_errors_are_known_in_every_language(cell, tmp_path):
    root = write(tmp_path / "t", LETTERED, ("wide?", "x", cell, "z", "A"))
    faults = table_of({"root": str(root), "answer_as": "letter", "columns": COLUMNS}).scan.faults
    found = ["B is the spreadsheet's error" in fault.reason for fault in faults]
    assert found == ([True] if cell in ERRORS.split() else [])


def test_options_that_are_null_are_none_and_a_gap_is_refused(tmp_path):
    cells = {"1": {"A": "x", "B": "y", "C": None}, "2": ["x", "y", None], "3": {"A": "x", "B": None, "C": "z"}}
    rows = [{"q": f"{name}?", "opts": held, "answer": "A"} for name, held in cells.items()]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": "q", "options": ["opts"], "answer": "answer"}
    scan = table_of({"root": str(tmp_path), "file": "t.jsonl", "answer_as": "letter", "columns": columns}).scan
    assert [fault.row for fault in scan.faults] == [3]
    assert {e.options for split in SPLITS for e in scan.examples[split]} == {("x", "y")}


def test_a_shard_that_is_missing_among_the_others_is_told(tmp_path):
    for number in (0, 2):
        (tmp_path / f"train-{number:05}-of-00003.parquet").write_bytes(b"")
    (files,) = table_of({"root": str(tmp_path), "file": "*.parquet", "columns": COLUMNS}).files().values()
    assert [path.name for path in files] == [f"train-{number:05}-of-00003.parquet" for number in (0, 2, 1)]


def test_files_of_one_name_in_several_folders_are_several(tmp_path):
    for folder in "xy":
        write(tmp_path / folder, LETTERED, ("wide?", "x", "y", "z", "A"))
    scan = table_of({"root": str(tmp_path), "file": "*/*.csv", "answer_as": "letter", "columns": COLUMNS}).scan
    assert sorted(e.question_id for split in SPLITS for e in scan.examples[split]) == ["x/questions-1", "y/questions-1"]


def test_excel_s_own_files_are_read(tmp_path):
    text = 'Nr;Frage;A;B;Antwort\r\n1,0;"Größe ""breit""\nzwei Zeilen?";Füllung – alt;5,5 mm;B\r\n;;;;\r\n'
    text += "2;hoch?;ja;nein;A;;\r\n"
    columns = {"patient": "Nr", "question": "Frage", "options": ["A", "B"], "answer": "Antwort"}
    settings = {"root": str(tmp_path), "answer_as": "letter", "columns": columns}
    tables = {"utf-8-sig": text, "cp1252": text, "utf-16": text.replace(";", "\t"), "utf-8": text.replace("\r\n", "\r")}
    for encoding, content in {**tables, "utf-8-sig ": "sep=;\r\n" + text}.items():
        (tmp_path / "questions.csv").write_bytes(content.encode(encoding.strip()))
        scan = table_of(settings, encoding="cp1252" if encoding == "cp1252" else "utf-8").scan
        held = {e.patient_id: (e.question, e.options, e.answer) for split in SPLITS for e in scan.examples[split]}
        assert held == {
            "1": ('Größe "breit"\nzwei Zeilen?', ("Füllung – alt", "5,5 mm"), "5,5 mm"),
            "2": ("hoch?", ("ja", "nein"), "ja"),
        }, encoding
        assert (scan.faults, scan.all_rows.left_out) == ((), 1)


def test_arrow_s_own_types_are_read_from_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    count, array = 5, pyarrow.array
    options = pyarrow.map_(pyarrow.string(), pyarrow.string())
    table = pyarrow.table(
        {
            "q": array([f"{n}?" for n in range(count)], pyarrow.large_string()),
            "bytes": array([f"{n}?".encode() for n in range(count)]),
            "few": array([{"A": "x", "B": "y", **({"C": "z"} if n % 2 else {})} for n in range(count)]),
            "map": array([[("A", "x"), ("B", "y")]] * count, options),
            "answer": array([("A", "B")[n % 2] for n in range(count)]).dictionary_encode(),
            "film": array([png(n) for n in range(count)]),
            "films": array([[png(n), png(n + 1)] if n else None for n in range(count)]),
            "day": array([date(2024, 5, n + 1) for n in range(count)]),
            "moment": array([datetime(2024, 5, n + 1) for n in range(count)], pyarrow.timestamp("ns")),
            "nothing": pyarrow.nulls(count),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    tags = {"day": "day", "moment": "moment", "nothing": "nothing"}
    for question, options, images in (("q", "few", "film"), ("bytes", "map", "films")):
        columns = {"question": question, "options": [options], "answer": "answer", "images": [images], "tags": tags}
        settings = {"root": str(tmp_path), "file": "t.parquet", "answer_as": "letter", "columns": columns}
        scan = table_of(settings).scan
        assert scan.faults == ()
        held = {e.question: e for split in SPLITS for e in scan.examples[split]}
        for n in range(count):
            example = held[f"{n}?"]
            assert example.options == (("x", "y", "z") if n % 2 and options == "few" else ("x", "y"))
            assert example.answer == ("x", "y")[n % 2]
            shades = [n] if images == "film" else [n, n + 1] if n else []
            assert [load_image(image).getpixel((0, 0))[0] for image in example.images] == shades
            assert example.tags == {"day": f"2024-05-0{n + 1}", "moment": f"2024-05-0{n + 1}"}


def test_pictures_and_classes_that_datasets_saved_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = {"q": datasets.Value("string"), "label": datasets.ClassLabel(names=["caries", "healthy"])}
    kinds |= {"film": datasets.Image(), "films": datasets.List(datasets.Image())}
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(png(100 + n))

    def part(first):
        rows = [
            {
                "q": f"{n}?",
                "label": n % 2,
                "film": str(tmp_path / f"{n}.png"),
                "films": [{"bytes": png(n), "path": None}] * n,
            }
            for n in range(first, first + 3)
        ]
        return datasets.Dataset.from_list(rows, features=datasets.Features(kinds))

    datasets.DatasetDict({"train": part(0), "test": part(3)}).save_to_disk(str(tmp_path / "v1.0"))
    part(0).to_parquet(str(tmp_path / "t.parquet"))
    columns = {"question": "q", "answer": "label"}
    settings = {"root": str(tmp_path), "choices": ["healthy", "caries"]}
    read = partial(table_of, settings)
    saved = {"file": "v1.0", "columns": columns | {"split": "split", "images": ["film", "films"]}}
    splits = read(**saved).splits
    assert {split: {e.question for e in held} for split, held in splits.items()} == {
        "train": {"0?", "1?", "2?"}, "val": set(), "test": {"3?", "4?", "5?"},
    }  # fmt: skip
    exported = read(file="t.parquet", columns=columns | {"images": ["films"]}).scan
    for held in ([e for split in SPLITS for e in splits[split]], [e for s in SPLITS for e in exported.examples[s]]):
        for example in held:
            n = int(example.question[:-1])
            assert example.answer == ("caries", "healthy")[n % 2]
            shades = [load_image(image).getpixel((0, 0))[0] for image in example.images]
            assert shades == ([100 + n] if len(held) == 6 else []) + [n] * n


def test_a_folder_that_datasets_saved_has_the_same_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = made_table(tmp_path / "t", 3, "jsonl", "list", "letter")
    rows = [json.loads(line) for line in made.path.read_text("utf-8").splitlines()]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "t" / "saved"))
    assert read(table_of(made.settings | {"file": "saved"})) == truth(made)


def test_parquet_has_the_same_rows(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = made_table(tmp_path / "t", 4, "jsonl", "list", "index_from_0")
    rows = [json.loads(line) for line in made.path.read_text("utf-8").splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t" / "table.parquet")
    assert read(table_of(made.settings | {"file": "table.parquet"})) == truth(made)


def test_rows_of_a_closed_set_without_options_are_told(tmp_path):
    closed = [(f"wide {number}?", "y", "x", "y", "z") for number in range(20)]
    root = write(tmp_path / "t", ("q", "answer", "A", "B", "C"), *closed, ("high?", "y", "", "", ""))
    data = table_of({"root": str(root), "columns": COLUMNS})
    held = [example for split in SPLITS for example in data.scan.examples[split]]
    assert sorted(len(example.options) for example in held) == [0, *[3] * 20]
    assert "column 'A': rows without any option are open questions (1 cells)" in data.assumptions()


def test_a_row_with_more_options_than_there_are_letters_is_refused_and_loses_none(tmp_path):
    marks = [f"o{number}" for number in range(12)]
    full, few = ("wide?", "t3", *(f"t{number}" for number in range(12))), ("high?", "t3", *(f"t{n}" for n in range(10)))
    root = write(tmp_path / "t", ("q", "answer", *marks), full, (*few, "", ""))
    columns = {"question": "q", "answer": "answer", "options": marks}
    scan = table_of({"root": str(root), "columns": columns}).scan
    assert [(fault.row, fault.reason) for fault in scan.faults] == [(1, "has 12 options, expected at most 10")]
    held = [example for split in SPLITS for example in scan.examples[split]]
    assert [len(example.options) for example in held] == [10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": Columns(question="")}, "`ask` say what all rows are asked"),
        ({"choices": ("a", "b"), "columns": Columns(options=("A", "B"))}, "leave one out"),
        ({"answer_as": "letter"}, "which needs options"),
        ({"choices": tuple("abcdefghijkl")}, "choices must be 2 to 10 texts that differ"),
        ({"choices": ("a",)}, "choices must be 2 to 10 texts that differ"),
        ({"choices": ("a", "b", "A ")}, "choices must be 2 to 10 texts that differ"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Table.Config(**settings)

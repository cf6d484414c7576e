"""Reference: rows by hand whose right reading is plain to a person. Run: pytest tests/datamodules/test_row_rules.py."""

import json
import random
import time

import pytest

from datamodules import memory
from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError
from datamodules.check import quick, quick_checks
from datamodules.check.__main__ import main
from datamodules.hashes import bad_pictures, data_sha256
from datamodules.mmedexpert import MMedExpert
from datamodules.options import lettered
from datamodules.pmc_vqa import PMCVQA
from datamodules.slake import Slake
from datamodules.spelling import plain, yes_or_no
from tests.datamodules import released_shapes as made


def pmc(root, *changes, write=made.write_csv, **options):
    """PMC-VQA with a changed row for each change."""
    rows = [made.pmc_vqa_row(i, "test", "v1") | change for i, change in enumerate(changes)]
    for row in rows:
        made.picture(root / "images" / row["Figure_path"], 1)
    write(root / "test_clean.csv", rows)
    return PMCVQA(PMCVQA.Config(root=str(root), **options), specialty="s")


def test_a_yes_is_a_yes_in_any_dress_and_nothing_else_is(tmp_path):
    draw = random.Random(0)
    wide = {ord(c): ord(c) + 0xFEE0 for c in "yesnoYESNO"}
    for _ in range(300):
        word = draw.choice(["yes", "no"])
        dressed = "".join(draw.choice([c, c.upper()]) + draw.choice(["", "", "\u200b", "\u00ad"]) for c in word)
        dressed = dressed.translate(wide) if draw.random() < 0.3 else dressed
        dressed = draw.choice(["", " ", "\xa0", "\ufeff"]) + dressed + draw.choice(["", ".", "!", "。", " .", "\u2060"])
        assert yes_or_no(dressed) == word
        assert yes_or_no(dressed + draw.choice(["x", ", left", " 1", "/no"])) == ""
    answers = ["Yes.", "NO.", "ｎｏ", "\u200bYes\u200b", "Left", "yes, both"]
    rows = [made.slake_row(i, answer) for i, answer in enumerate(answers)] + [
        made.slake_row(9, "Liver", answer_type="OPEN")
    ]
    made.write_json(tmp_path / "test.json", rows)
    module = Slake(Slake.Config(root=str(tmp_path)), specialty="s")
    assert [e.answer for e in module.scan.examples["test"]] == ["yes", "no", "no", "yes"]
    assert module.scan.left_out == {
        "questions marked CLOSED whose answer is neither yes nor no": 2,
        "open questions": 1,
    }
    assert str(module.scan.all_rows) == "4 read + 3 left out (0 bad, 3 not asked for) + 0 unread = 7 rows"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Answer": "uptake 0 b"}, "Answer_label 'A' is the option 'uptake 0 a', but Answer is 'uptake 0 b'"),
        ({"Answer": "B"}, "but Answer is 'B': which of them is right?"),
        ({"Answer": "B: uptake 0 a"}, "but Answer is 'B: uptake 0 a'"),
        ({"Answer": "something else"}, "but Answer is 'something else'"),
        ({"Answer": "A"}, ""),
        ({"Answer": " Uptake 0\xa0A. "}, ""),
        ({"Answer": "A: uptake 0 a"}, ""),
        ({"Answer": ""}, ""),
        ({"Choice A": "B", "Choice B": "A", "Answer": "B"}, ""),  # blood groups: the text of option A
    ],
)
def test_two_columns_of_gold_say_the_same_or_the_row_is_bad(tmp_path, change, reason):
    scan = pmc(tmp_path, change).scan
    assert [fault.reason for fault in scan.faults if reason and reason in fault.reason] or not (reason or scan.faults)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ("B. fragilis|E. coli|C. difficile|D. immitis", "B. fragilis|E. coli|C. difficile|D. immitis"),
        ("A: B. fragilis|B: E. coli|C: C. difficile|D: D. immitis", "B. fragilis|E. coli|C. difficile|D. immitis"),
        ("A. lung|B. liver|C. eye|D. skin", "lung|liver|eye|skin"),
        ("(A) lung|(B) liver|(C) eye|(D) skin", "lung|liver|eye|skin"),
        ("A. lung|C. liver|C. eye|D. skin", None),
        ("B: lung|A: liver|C: eye|D: skin", None),
        ("A) lung|B) liver|C) eye|A) skin", None),
    ],
)
def test_letters_of_choices_are_marks_or_names(tmp_path, texts, options):
    found = pmc(
        tmp_path, {f"Choice {k}": v for k, v in zip("ABCD", texts.split("|"), strict=True)} | {"Answer": ""}
    ).scan
    read = [example.options for example in found.examples["test"]]
    assert read == ([tuple(options.split("|"))] if options else [])
    assert options or "carries the letter" in found.faults[0].reason


def test_lettered_lists_are_read_by_their_letters_in_any_order():
    draw = random.Random(0)
    for _ in range(200):
        letters = "ABCDEFGHIJ"[: draw.randint(2, 10)]
        want = {letter: f"finding {letter.lower()} {draw.choice(['A.', '', '(b)'])}".strip() for letter in letters}
        order = draw.sample(letters, len(letters))
        mark = draw.choice(["{}) {}", "{}: {}", "({}) {}", "{}.{}", "{}、{}"])
        held = [want[letter].capitalize() if mark == "{}.{}" else want[letter] for letter in order]
        listed = [mark.format(letter, text) for letter, text in zip(order, held, strict=True)]
        assert lettered(listed) == {letter: held[order.index(letter)] for letter in letters}
        shuffled = {letter: want[letter] for letter in order}
        assert lettered(shuffled) == lettered([{"letter": k, "content": v} for k, v in shuffled.items()]) == want
    names = ["B. fragilis", "E. coli", "C. difficile"]
    assert list(lettered(names).values()) == names
    with pytest.raises(BadExampleError, match="are their letters marks, or names cut short"):
        lettered(["B. fragilis", "A. baumannii"])


def test_the_check_lists_missing_values_options_that_look_the_same_and_the_rows_of_each_file(tmp_path, capsys):
    same = {"Choice A": "A: 5 mm", "Choice B": "B: 5\xa0mm", "Choice C": "C: nan", "Choice D": "D: None", "Answer": ""}
    pmc(tmp_path, {}, same, {"Answer_label": "Z"})
    out = tmp_path / "out.json"
    assert main(["datamodules.pmc_vqa.PMCVQA", f"root={tmp_path}", "on_bad_row=skip", "--json", str(out)]) == 0
    found = json.loads(out.read_text("utf-8"))
    assert [(doubt["row"], doubt["reason"]) for doubt in found["doubts"]] == [
        (2, "option 'nan' is how programs write a missing value"),
        (2, "option 'None' is how programs write a missing value"),
        (2, "options '5 mm', '5\\xa0mm' look the same"),
    ]
    rows = {"read": 2, "bad": 1, "not_asked": 0, "unread": 0, "left_out": 1, "rows": 3}
    assert found["sets"]["PMCVQA"]["rows"] == {"test_clean.csv": rows}
    said = capsys.readouterr().out
    assert "test_clean.csv: 2 read + 1 left out (1 bad, 0 not asked for) + 0 unread = 3 rows" in said
    assert "3 TO LOOK AT" in said


def test_signs_are_no_spelling():
    assert len({plain(text) for text in ("<5", ">5", "5", "+", "-", "C+", "C", "0.5", "05")}) == 9


@pytest.mark.parametrize(
    ("encoding", "setting", "said"),
    [
        ("utf-8-sig", "utf-8", ""),
        ("utf-16", "utf-8", ""),
        ("cp1252", "cp1252", ""),
        ("cp1252", "utf-8", "byte 0xf6 is no character in utf-8.*encoding: cp1252"),
        ("utf-8", "cp1252", "is UTF-8, and encoding: cp1252 would read"),
        ("utf-16-le", "utf-8", "UTF-16 without a byte order mark"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_export_is_read_or_told_with_the_remedy(tmp_path, encoding, setting, said, delimiter):
    def write(path, rows):
        text = delimiter.join(rows[0]) + "\r\n"
        text += "".join(delimiter.join(f'"{value}"' for value in row.values()) + "\r\n" for row in rows)
        path.write_bytes(text.encode(encoding))

    module = pmc(tmp_path, {}, {"Question": "Größe; Übel, 5 °?"}, write=write, encoding=setting)
    if said:
        with pytest.raises(BadExampleError, match=f"(?s){said}"):
            _ = module.splits
    else:
        assert {e.question for e in module.splits["test"]} == {"Which uptake does figure 0 show?", "Größe; Übel, 5 °?"}


def expert(tmp_path, name, **options):
    module = MMedExpert(MMedExpert.Config(root=str(tmp_path / "set"), **options), specialty=name)
    module.memory = tmp_path / "memory"
    return module


def test_a_check_is_not_made_again_until_something_changes(tmp_path, monkeypatch):
    made.mmedexpert(tmp_path / "set")
    looked, real = [], quick.audit
    monkeypatch.setattr(memory, "SETTLED", 0.0)
    monkeypatch.setattr(quick, "audit", lambda data, **how: looked.append(data.specialty) or real(data, **how))

    def check(*names):
        looked.clear()
        quick_checks({name: expert(tmp_path, name, subset=name) for name in names})
        return list(looked)

    assert check("pediatrics", "brain_senses") == ["pediatrics", "brain_senses"]
    assert check("pediatrics", "brain_senses") == check("brain_senses") == []  # a resume, and a worker
    made.picture(tmp_path / "set" / "images" / "0.png", 99)
    assert check("pediatrics", "brain_senses") == ["pediatrics", "brain_senses"]
    assert check("pediatrics") == []
    for path in (tmp_path / "memory").iterdir():
        path.write_bytes(path.read_bytes()[:-9])  # a damaged memory is none
    assert check("pediatrics") == ["pediatrics"]
    with open(tmp_path / "set" / "all.jsonl", "a") as file:
        file.write(json.dumps(made.mmedexpert_row(201, patient_id="case-1")) + "\n")
    (tmp_path / "set" / "images" / "100.png").write_bytes(b"no picture")
    with pytest.raises(BadExampleError, match="pictures are bad"):
        check("pediatrics")
    with pytest.raises(BadExampleError, match="pictures are bad"):
        check("pediatrics")  # only what passes is remembered


def test_bad_pictures_and_hashes_are_found_once_by_all_processes(tmp_path, monkeypatch):
    made.mmedexpert(tmp_path / "set")
    (tmp_path / "set" / "images" / "3.png").write_bytes(b"no picture")
    monkeypatch.setattr(memory, "SETTLED", 0.0)
    (tmp_path / "memory").mkdir()
    first = expert(tmp_path, "s", on_bad_row="skip")
    sha256 = data_sha256(first, "train")
    assert [fault.row for fault in first.scan.faults] == [7, 8]
    monkeypatch.setattr("datamodules.hashes.load_image", None)
    monkeypatch.setattr("datamodules.hashes.picture_bytes", None)
    monkeypatch.setattr("datamodules.hashes._known", {})
    second = expert(tmp_path, "s", on_bad_row="skip")
    assert data_sha256(second, "train") == sha256
    assert second.scan.faults == first.scan.faults
    monkeypatch.undo()
    assert bad_pictures((), None) == {}
    assert VQADataModule.memory is None


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_checked_in_forty_cpu_seconds(tmp_path):
    for i in range(20):
        made.picture(tmp_path / "images" / f"{i}.png", i)
    rows = ({"images": [f"images/{i % 20}.png"], "patient_id": f"case-{i % 20}"} for i in range(100_000))
    made.write_lines(tmp_path / "all.jsonl", (made.mmedexpert_row(i, **fields) for i, fields in enumerate(rows)))
    began = time.process_time()
    assert main(["datamodules.mmedexpert.MMedExpert", f"root={tmp_path}"]) == 0
    assert time.process_time() - began < 40

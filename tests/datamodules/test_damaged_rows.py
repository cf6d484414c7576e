"""Reference: files whose damage is known, and a slow count of records, character by character, that shares no code.

Run: pytest tests/datamodules/test_damaged_rows.py. Every file is read by a set of rows as a user would write one.
"""

import json
import random

import pytest

from datamodules.batch import BadExampleError, Example
from datamodules.options import chosen
from datamodules.readers import read_rows
from datamodules.row_set import BY_PATIENT, RowSet
from datamodules.rows import Fault, Record
from tests.campaigns.damaged_rows import DELIMITER, FORMATS, damaged_rows

SEEDS = 15
MUTATIONS = 10


class Made(RowSet):
    """Every file of the root."""

    def files(self):
        return {BY_PATIENT: sorted(self.root.iterdir())}

    def example(self, record):
        options = {letter: record.text(letter) for letter in "AB"}
        key, answer = record.text("id"), chosen(record.text("answer"), options)
        return Example(key, (), record.text("question"), tuple(options.values()), answer, f"{record.file}/{key}")


def made_set(root, **options):
    return Made(Made.Config(root=str(root), shuffle_options=False, **options), specialty="s")


@pytest.mark.parametrize("form", FORMATS)
def test_read_left_out_and_unread_are_all_rows_of_the_file(tmp_path, form):
    for seed in range(SEEDS):
        made = damaged_rows(seed, form)
        path = tmp_path / str(seed) / made.name
        path.parent.mkdir()
        path.write_bytes(made.content)
        scan = made_set(path.parent).scan
        found, place = scan.rows[made.name], (form, seed, made.damages)
        read = sorted(e.patient_id for held in scan.examples.values() for e in held)
        assert read == sorted(made.sound), place
        assert found.read == len(read)
        assert made.rows <= found.rows <= made.rows + made.spare, place
        assert any(fault.unread for fault in scan.faults) == made.unread, place
        assert sum(fault.rows for fault in scan.faults) == found.bad + found.unread
        assert all("line" in fault.reason or fault.row or fault.unread for fault in scan.faults)


def slow_lines(text):
    """Lines with their ends, as spreadsheets break them."""
    lines, current = [], ""
    for at, letter in enumerate(text):
        current += letter
        if letter == "\n" or (letter == "\r" and text[at + 1 : at + 2] != "\n"):
            lines, current = [*lines, current], ""
    return lines + ([current] if current else [])


def after(state, letter, delimiter):
    """The state behind a character within a field; `broken` where a closed quote goes on."""
    if state == "quoted":
        return "closing" if letter == '"' else "quoted"
    if letter in "\r\n":
        return "end"
    if letter == delimiter:
        return "start"
    if state == "closing":
        return "quoted" if letter == '"' else "broken"
    return "quoted" if letter == '"' and state == "start" else "plain"


def slow_record(lines, at, delimiter):
    """(fields, line behind) of the record that begins with a line; (0, at + 1) for none."""
    state, fields = "start", 1
    for behind, line in enumerate(lines[at:], at + 1):
        for letter in line:
            fields += state != "quoted" and letter == delimiter
            state = after(state, letter, delimiter)
            if state == "broken":
                return 0, at + 1
        if state != "quoted":
            return fields, behind
    return 0, at + 1


def slow_ending(line):
    return "\r\n" if line.endswith("\r\n") else line[-1:]


def slow_count(text, delimiter):
    """Records of a table as `datamodules.tables` says, one character after the other."""
    lines = slow_lines(text)
    width, at = slow_record(lines, 0, delimiter)
    count = 0
    while at < len(lines):
        fields, behind = slow_record(lines, at, delimiter)
        inner = lines[at + 1 : behind - 1]
        alike = all(slow_ending(line) == slow_ending(lines[0]) for line in inner)
        rows = bool(inner) and alike and all(slow_record([line], 0, delimiter)[0] == width for line in inner)
        count += bool(lines[at].strip("\r\n"))
        at = behind if fields == width and not rows else at + 1
    return count


@pytest.mark.parametrize("form", DELIMITER)
def test_tables_with_any_bytes_changed_have_as_many_rows_as_a_slow_count_finds(tmp_path, form):
    for seed in range(MUTATIONS):
        draw = random.Random(f"mutated {seed}")
        made = damaged_rows(seed, form)
        text = made.content.decode(
            "utf-16" if made.content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace"
        )
        text = text.replace("x" * 140_000, "")
        first = max(text.index("\n") + 1, 1)
        letters = list(text)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(first, len(letters))
            letters[at : at + draw.randint(0, 1)] = draw.choice(['"', '""', "\n", "\r", DELIMITER[form], "x", '",', ""])
        text = "".join(letters)
        path = tmp_path / made.name
        path.write_text(text, "utf-8", newline="")
        rows = sum(row.rows if isinstance(row, Fault) else 1 for row in read_rows(path, tmp_path))
        assert rows == slow_count(text, DELIMITER[form]), (form, seed)


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_json_with_any_bytes_changed_within_entries_keeps_its_rows(tmp_path, form):
    for seed in range(2 * MUTATIONS):
        draw = random.Random(f"mutated {seed}")
        rows = [f'{{"id": "q{i}", "question": "what", "A": "yes", "B": "no", "answer": "A"}}' for i in range(12)]
        hit = set(draw.sample(range(12), draw.randint(1, 4)))
        for i in hit:
            for _ in range(draw.randint(1, 3)):
                at = draw.randrange(14, len(rows[i]))
                rows[i] = rows[i][:at] + draw.choice('"{}[]:,x\\ \x01é') + rows[i][at + draw.randint(0, 1) :]
        content = "\n".join(rows) if form == "jsonl" else "[" + ",\n".join(rows) + "]"
        path = tmp_path / f"rows.{form}"
        path.write_text(content, "utf-8")
        found = list(read_rows(path, tmp_path))
        assert sum(row.rows if isinstance(row, Fault) else 1 for row in found) == 12, (form, seed)
        read = [row.fields.get("id") for row in found if isinstance(row, Record)]
        assert [key for key in read if int(key[1:]) not in hit] == [f"q{i}" for i in range(12) if i not in hit]
        assert not any(isinstance(row, Fault) and row.unread for row in found)


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.parquet", "rows.txt"])
def test_what_was_not_read_stops_even_under_skip(tmp_path, name):
    content = {"rows.csv": b"id,question,id\n1,2,3\n4,5,6\n"}.get(name, b'[{"id": "q0", "question": "what", "A": "x", ')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadExampleError, match=r"skip leaves out only what was read|pyarrow"):
        _ = made_set(tmp_path, on_bad_row="skip").splits


def test_all_faults_of_a_folder_are_told_at_once(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,question,id\n1,2,3\n")
    (tmp_path / "b.csv").write_bytes(b"id,question,A,B,answer\nq,what,x,y,A\nr,what,x,y,Z\n")
    (tmp_path / "c.jsonl").write_bytes(b'{"id": "s"\n')
    (tmp_path / "d.csv").write_bytes(b"")
    (tmp_path / "e.csv").mkdir()
    with pytest.raises(BadExampleError) as caught:
        _ = made_set(tmp_path).splits
    said = str(caught.value)
    for text in ("1 of 4 rows were not read", "1 read + 2 left out (2 bad, 0 not asked for) + 1 unread = 4 rows"):
        assert text in said
    for text in ("names 'id' twice", "b.csv, row 2: label is 'Z'", "c.jsonl, row 1", "d.csv: holds no row", "a folder"):
        assert text in said


@pytest.mark.parametrize("row", [0, 5, 11])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_zero_byte_costs_its_row_alone(tmp_path, form, row):
    rows = [{"id": f"p{i}", "question": f"which {i}?", "A": "left", "B": "right", "answer": "A"} for i in range(12)]
    lines = [json.dumps(one) if form == "jsonl" else ",".join(one.values()) for one in rows]
    lines[row] = lines[row].replace("which", "wh\0ich")
    head = [] if form == "jsonl" else [",".join(rows[0])]
    (tmp_path / f"rows.{form}").write_text("\n".join([*head, *lines]) + "\n")
    scan = made_set(tmp_path).scan
    (fault,) = scan.faults
    assert (fault.row, fault.rows, fault.unread) == (row + 1, 1, False)
    assert "byte 0x00" in fault.reason
    assert sum(map(len, scan.examples.values())) == 11

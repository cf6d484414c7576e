"""Tables that are made from a seed, written in every form in which labs keep them, with the rows that they hold."""

import csv
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

LETTERS = "ABCDEFGHIJ"
WORDS = "caries krone Füllung wide narrow 5\u00a0mm <5 it's a,b; left/right “round” x|y café".split(" ")
FILES = ("comma", "semicolons", "tabs", "cp1252", "quoted", "utf-16", "jsonl", "json")
"""How the file is written: `semicolons` with a byte order mark, `quoted` with every field in quotes and CR LF."""
OPTIONS = ("columns", "list", "python", "letters", "numbers", "separator", "in_question")
ANSWERS = ("letter", "text", "index_from_0", "index_from_1")
SEPARATOR = " ~ "


@dataclass(frozen=True)
class Row:
    """What a row says, whatever it is written like."""

    patient: str
    image: str
    question: str
    options: tuple[str, ...]
    right: int
    chain: str
    kind: str


@dataclass(frozen=True)
class Table:
    """A file, how it is to be read, and what is in it."""

    path: Path
    settings: dict
    rows: tuple[Row, ...]


def made_rows(draw: random.Random, count: int) -> tuple[Row, ...]:
    """Rows whose texts hold separators, accents and quotes; every number of the right option occurs."""
    size = draw.randint(2, 5)
    found = []
    for number in range(count):
        options: list[str] = []
        while len(options) < size:
            text = " ".join(draw.choices(WORDS, k=draw.randint(1, 3)))
            text = f"{text} {len(options)}{number}"
            options.append(text)
        stem = f"Which of these does film {number} show, {draw.choice(WORDS)}?"
        chain = f"the edge is {draw.choice(WORDS)}." if draw.random() < 0.7 else ""
        found.append(
            Row(str(100 + number // 2), f"f{number}.png", stem, tuple(options), number % size, chain, f"k{number % 2}")
        )
    return tuple(found)


def made_table(folder: Path, seed: int, form: str, options: str, answer: str) -> Table:
    """Write a table and its pictures.

    Args:
        folder: is made.
        seed: of the rows.
        form: of `FILES`.
        options: of `OPTIONS`.
        answer: of `ANSWERS`.
    """
    draw = random.Random(f"table {seed}")
    rows = made_rows(draw, 12)
    (folder / "films").mkdir(parents=True)
    for number, row in enumerate(rows):
        Image.new("RGB", (8, 8), (number, seed % 256, 0)).save(folder / "films" / row.image)
    spread = draw.random() < 0.5  # as Excel has it: numbers with an empty fraction, empty rows and columns behind
    records = [record(row, options, answer, spread, form) for row in rows]
    path = folder / {"tabs": "table.tsv", "jsonl": "table.jsonl", "json": "table.json"}.get(form, "table.csv")
    path.write_bytes(content(records, form, spread))
    columns = {
        "patient": "Patient",
        "question": "Question",
        "images": ["Film"],
        "options": list(LETTERS[: len(rows[0].options)]) if options == "columns" else ["Options"],
        "answer": "Answer",
        "reasoning": {"differential": "Differential"},
        "tags": {"question_type": "Type"},
    }
    columns["options"] = ["Question"] if options == "in_question" else columns["options"]
    settings = {"root": str(folder), "file": path.name, "images": "films", "answer_as": answer, "columns": columns}
    settings |= {"separator": SEPARATOR} if options == "separator" else {}
    settings |= {"encoding": "cp1252"} if form == "cp1252" else {}
    return Table(path, settings, rows)


def record(row: Row, options: str, answer: str, spread: bool, form: str) -> dict:
    """A row as fields."""
    native = form in ("jsonl", "json")
    marks = {"letters": [f"{letter}) " for letter in LETTERS], "numbers": [f"{i}. " for i in range(1, 11)]}
    marks["in_question"] = marks["letters"]
    cell: dict = {}
    if options == "columns":
        cell = dict(zip(LETTERS, row.options, strict=False))
    elif options == "list":
        cell["Options"] = list(row.options) if native else json.dumps(row.options, ensure_ascii=False)
    elif options == "python":
        cell["Options"] = repr(list(row.options))
    elif options == "separator":
        cell["Options"] = SEPARATOR.join(row.options)
    else:
        text = "\n".join(mark + text for mark, text in zip(marks[options], row.options, strict=False))
        cell = {"Options": text} if options != "in_question" else {}
    said = {
        "letter": LETTERS[row.right],
        "text": row.options[row.right],
        "index_from_0": row.right,
        "index_from_1": row.right + 1,
    }[answer]
    said = f"{said}.0" if spread and not native and isinstance(said, int) else said
    said = float(said) if spread and native and isinstance(said, int) else said
    question = f"{row.question}\n{text}" if options == "in_question" else row.question
    patient = f"{row.patient}.0" if spread else row.patient
    return {
        "Patient": float(patient) if native and spread else patient,
        "Film": row.image,
        "Question": question,
        **cell,
        "Answer": said,
        "Differential": row.chain,
        "Type": row.kind,
    }


def content(records: list[dict], form: str, spread: bool) -> bytes:
    """The bytes of a file; what a code page lacks is not in the words that are drawn for it."""
    if form == "jsonl":
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()
    if form == "json":
        return json.dumps(records, indent=1).encode()
    delimiter = {"semicolons": ";", "cp1252": ";", "tabs": "\t"}.get(form, ",")
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if form == "quoted" else csv.QUOTE_MINIMAL
    end = "\r\n" if form in ("quoted", "semicolons") else "\n"
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
    tail = ["", ""] if spread else []
    writer.writerow([*records[0], *tail])
    writer.writerows([*one.values(), *tail] for one in records)
    if spread:
        stream.write(f"{delimiter * 3}{end}{delimiter * 12}{end}{end}")
    encoding = {"semicolons": "utf-8-sig", "cp1252": "cp1252", "utf-16": "utf-16"}.get(form, "utf-8")
    return stream.getvalue().encode(encoding)

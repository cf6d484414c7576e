"""Files of rows with known damage: what is in them, and which rows a reader can still read, follows from the seed."""

import csv
import io
import json
import random
from dataclasses import dataclass

COLUMNS = ("id", "question", "A", "B", "notes", "answer")
FORMATS = ("csv", "semicolons", "tsv", "jsonl", "json", "pretty")
"""`semicolons` is a CSV as spreadsheets write it; `pretty` a JSON list over many lines."""
SUFFIX = {"semicolons": "csv", "pretty": "json"}
DELIMITER = {"csv": ",", "semicolons": ";", "tsv": "\t"}
WORDS = [
    "heart",
    "left lung",
    "5 mm",
    "Ödem",
    "肺",
    "a, b; c",
    'he said "ok"',
    "x < y",
    "it's",
    "\U0001fac1",
    "#1",
    "B. fragilis",
]
OF_TABLES = ("open_quote", "foreign", "short", "long", "torn", "behind_quote", "no_line")
OF_JSON = ("foreign", "torn", "twice", "no_object", "inserted", "deleted")


@dataclass(frozen=True)
class Damaged:
    """A file.

    Attributes:
        name: of it.
        content: its bytes.
        rows: rows that were written, the damaged ones included.
        spare: lines of damaged rows beyond the first: each may count as a row, where nobody can know better.
        sound: ids of the rows that are whole, in order.
        unread: whether the file ends before its end.
        damages: (row, what was done to it).
    """

    name: str
    content: bytes
    rows: int
    spare: int
    sound: tuple[str, ...]
    unread: bool
    damages: tuple[tuple[int, str], ...]


def damaged_rows(seed: int, form: str = "") -> Damaged:
    """A file of up to 30 rows, of which some are damaged.

    Args:
        seed: everything follows from it.
        form: of `FORMATS`; empty draws one.
    """
    draw = random.Random(f"damaged rows {seed}")
    form = form or draw.choice(FORMATS)
    rows = [made_row(draw, number, lines=draw.random() < 0.3) for number in range(draw.randint(3, 30))]
    if form in DELIMITER:
        return damaged_table(draw, form, rows)
    return damaged_json(draw, form, rows)


def made_row(draw: random.Random, number: int, lines: bool) -> dict[str, str]:
    """A row with texts that need quoting, and line breaks within them where `lines` says so."""
    gap = "\n" if lines else " "
    question = gap.join(draw.choices(WORDS, k=draw.randint(1, 5)))
    notes = "x" * 140_000 if draw.random() < 0.02 else "none"  # beyond the limit of Python's csv module
    return {
        "id": f"q{number}",
        "question": question,
        "A": f"yes {number}",
        "B": "no, no",
        "notes": notes,
        "answer": "A",
    }


def damaged_table(draw: random.Random, form: str, rows: list[dict[str, str]]) -> Damaged:
    """CSV or TSV, with or without a byte order mark, its lines ended in either way."""
    end = draw.choice(["\n", "\r\n"])
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    hit = set(draw.sample(range(len(rows)), min(len(rows), draw.choice([0, 1, 1, 2, 4]))))
    texts, damages, spare, lost = [line_of(COLUMNS, form, end, quoting)], [], 0, set()
    for number, row in enumerate(rows):
        text = line_of(row.values(), form, end, quoting)
        if number in hit:
            kind = draw.choice(OF_TABLES)
            text = spoilt_line(draw, kind, text, DELIMITER[form], end)
            damages.append((number, kind))
            lost.add(number)
            spare += len(text.splitlines()) - 1 if kind != "no_line" else 0
        texts.append(text)
    content = "".join(texts).encode("utf-8", "surrogateescape")
    if draw.random() < 0.3:
        content = b"\xef\xbb\xbf" + content
    elif not any(kind == "foreign" for _, kind in damages) and draw.random() < 0.2:
        content = "".join(texts).encode("utf-16")
    gone = sum(kind == "no_line" for _, kind in damages)
    sound = tuple(row["id"] for number, row in enumerate(rows) if number not in lost)
    name = f"rows.{SUFFIX.get(form, form)}"
    return Damaged(name, content, len(rows) - gone, spare, sound, False, tuple(damages))


def line_of(values, form: str, end: str, quoting: int) -> str:
    """One record as Python's own writer has it."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=DELIMITER[form], lineterminator=end, quoting=quoting).writerow(values)
    return stream.getvalue()


def spoilt_line(draw: random.Random, kind: str, text: str, delimiter: str, end: str) -> str:
    """A record with one damage; every kind leaves no sound record."""
    body = text.removesuffix(end)
    tail = f"{delimiter}x{end}"
    if kind == "open_quote":
        key = body.partition(delimiter)[0].strip('"')
        return delimiter.join([key, '"what is not closed', "a", "b", "c"]) + tail
    if kind == "foreign":
        at = draw.randint(1, len(body) - 1)
        return body[:at] + "\udcb0" + body[at:] + end if "\n" not in body else body.replace("\n", "\udcb0", 1) + end
    if kind == "short":
        return body.rpartition(delimiter)[0] + end
    if kind == "long":
        return body + tail
    if kind == "torn":
        return body[: draw.randint(1, 2)] + end
    if kind == "behind_quote":
        return f'z{delimiter}"a"b{delimiter}c{delimiter}d{delimiter}e{tail}'
    return end  # an empty line in its place


def damaged_json(draw: random.Random, form: str, rows: list[dict[str, str]]) -> Damaged:
    """JSON lines or a list, on one line or on many; two JSON lines may have lost the line break between them."""
    hit = set(draw.sample(range(len(rows)), min(len(rows), draw.choice([0, 1, 1, 2, 4]))))
    texts, damages = [], []
    for number, row in enumerate(rows):
        text = json.dumps(row, ensure_ascii=draw.random() < 0.5, indent=1 if form == "pretty" else None)
        if number in hit:
            kind = draw.choice(OF_JSON)
            if kind == "no_object" and number - 1 in hit:  # behind a torn entry it cannot be told from its end
                kind = "twice"
            text = spoilt_object(draw, kind, text)
            damages.append((number, kind))
        texts.append(text)
    lost = set(hit)
    unread = False
    if form == "jsonl":
        glued = draw.randrange(len(rows) - 1) if draw.random() < 0.2 else -1
        whole = not {glued, glued + 1} & hit
        glue = [(" " if number == glued and whole else "\n") for number in range(len(rows))]
        lost |= {glued, glued + 1} if glued >= 0 and whole else set()
        content = "".join(text + mark for text, mark in zip(texts, glue, strict=True))
    else:
        content = "[" + ", ".join(texts) + "]"
        if draw.random() < 0.15:
            content, unread = content.rstrip("]"), True
    held = content.encode("utf-8", "surrogateescape")
    held = b"\xef\xbb\xbf" + held if draw.random() < 0.3 else held
    sound = tuple(row["id"] for number, row in enumerate(rows) if number not in lost)
    return Damaged(f"rows.{SUFFIX.get(form, form)}", held, len(rows), 0, sound, unread, tuple(damages))


def spoilt_object(draw: random.Random, kind: str, text: str) -> str:
    """An object with one damage behind its first key; every kind leaves no sound row."""
    first = text.index('"question"')
    if kind == "foreign":
        at = text.index(":", first) + 3
        return text[:at] + "\udcb0" + text[at:]
    if kind == "torn":
        return text[: draw.randint(first, len(text) - 2)].rstrip("}\n ")
    if kind == "twice":
        return text[:first] + '"question": "another", ' + text[first:]
    if kind == "no_object":
        return "7"
    at = text.index('"A": ')
    if kind == "inserted":
        return text[:at] + draw.choice(["}", "]", '"x', "{"]) + text[at:]
    return text[:first] + text[first + 1 :]

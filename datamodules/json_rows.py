"""Rows of JSON lines and of JSON lists, read on behind whatever is damaged.

JSON lines: a line is a row, unless it is empty; several objects on one line, or a torn one before whole ones, count as
so many bad rows. A list: an entry is a row. A damaged entry reaches to the next object that begins as the first one of
the file does, with the same key; from there on entries are read again.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from datamodules.decoding import Encoding, foreign
from datamodules.rows import Fault, Record, shortened

FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\\n]|\\.)*")\s*:')
BETWEEN = re.compile(r"[\s,]*")
NESTED = 32
"""Objects within a sound entry of a damaged list that may begin as an entry does."""


def load_json(text: str | bytes) -> Any:
    """JSON without repeated keys, of which the last would silently win.

    Raises:
        ValueError: it is none, or is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    return DECODER.decode(text.decode("utf-8-sig") if isinstance(text, bytes) else text)


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ.

    Raises:
        ValueError: two are the same.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key is given twice among {shortened([key for key, _ in pairs], 300)}")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=unique)


def json_lines(text: str, name: str, encoding: Encoding = "utf-8", damaged: bool = False) -> Iterator[Record | Fault]:
    """One object per line; arguments as of `table_rows`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    yield from line_rows(((line, damaged) for line in lines), name, encoding)


def line_rows(lines: Iterable[tuple[str, bool]], name: str, encoding: Encoding = "utf-8") -> Iterator[Record | Fault]:
    """One object per line; empty lines are passed over, and rows count lines.

    Args:
        lines: without their ends, each with whether it may hold bytes that belong to no character.
        name: of the file in messages.
        encoding: that it was read in, for messages.
    """
    key = ""
    for row, (line, damaged) in enumerate(lines, 1):
        if not line.strip():
            continue
        strange = foreign(line, encoding) if damaged else ""
        found = Fault(name, row, f"is not JSON: {strange}") if strange else parsed(line, name, row)
        key = first_key(line) or key
        if isinstance(found, Fault) and (held := len(starts(line, key))) > 1:
            found = Fault(name, row, f"{found.reason} It holds {held} objects; was a line break lost?", held)
        yield found


def parsed(line: str, name: str, row: int) -> Record | Fault:
    """One line as a row."""
    try:
        return row_of(load_json(line), name, row)
    except (ValueError, RecursionError) as error:
        return Fault(name, row, f"is not JSON ({error}); is the line whole?")


def row_of(entry: Any, name: str, row: int) -> Record | Fault:
    """A parsed entry as a row."""
    return (
        Record(name, row, entry) if isinstance(entry, dict) else Fault(name, row, f"is {shortened(entry)}, no object")
    )


def json_list(text: str, name: str, encoding: Encoding = "utf-8", damaged: bool = False) -> Iterator[Record | Fault]:
    """One list of objects; arguments as of `table_rows`."""
    content: Any = None
    try:
        content = None if damaged else load_json(text)
    except (ValueError, RecursionError):
        damaged = True
    if damaged:
        yield from damaged_list(text, name, encoding)
    elif isinstance(content, list):
        yield from (row_of(entry, name, row) for row, entry in enumerate(content, 1))
    else:
        entries = content.items() if isinstance(content, dict) else ()
        lists = {key: held for key, held in entries if isinstance(held, list)}
        remedy = f"; write the list under {next(iter(lists))!r} into a file of its own" if lists else ""
        message = f"holds {type(content).__name__}, expected a list of objects{remedy}"
        yield Fault(name, 0, message, max(map(len, lists.values()), default=0), unread=True)


def damaged_list(text: str, name: str, encoding: Encoding) -> Iterator[Record | Fault]:
    """The entries of a list that is no JSON as a whole; arguments as of `table_rows`."""
    opened = len(text) - len(text.lstrip()) + 1
    begins = starts(text, entry_key(text))
    if text[opened - 1 : opened] != "[":
        hint = "; JSON lines belong into a .jsonl file" if text[opened - 1 : opened] == "{" else ""
        yield Fault(name, 0, f"does not begin as a list{hint}", len(begins), unread=True)
        return
    place, row, told = Place(text, opened, begins), 0, True
    while True:
        gap = BETWEEN.match(text, place.position).group()
        place.go(place.position + len(gap))
        rest = text[place.position :]
        if not rest or (rest[0] == "]" and not rest[1:].strip() and "," not in gap):
            break
        wrong = "" if told or gap.count(",") == 1 else f"stands {gap.strip()!r}, expected one comma"
        lost, line = 0, place.line
        if rest[0] == "]":
            wrong = "the list ends, and the file goes on" if rest[1:].strip() else "a comma stands before the end"
            place.go(place.next_begin())
        elif wrong and "," not in gap and rest[0] != "{":
            lost = int('"' in text[place.position : place.next_begin()])  # else it is no remainder of an entry
            place.go(place.next_begin())
        if wrong:
            row += lost
            yield Fault(name, row, f"line {line}: behind the entry {wrong}", lost)
            told = True
            continue
        row += 1
        begin, line, (entry, problem) = place.position, place.line, place.entry()
        told = bool(problem)  # then the comma was passed over
        strange = foreign(text[begin : place.position], encoding)
        if problem or strange:
            yield Fault(name, row, f"line {line}: is not JSON ({problem or strange})")
        else:
            yield row_of(entry, name, row)
    if not text.rstrip().endswith("]"):
        yield Fault(name, 0, "does not end with ]: was the file cut off? What is missing was not read", 0, unread=True)


class Place:
    """A place in a damaged list.

    Attributes:
        text: of the file.
        position: of the next character.
        begins: where objects begin as entries do, in order.
        line: of the place, from 1.
    """

    def __init__(self, text: str, position: int, begins: Sequence[int]) -> None:
        self.text, self.position, self.begins = text, position, begins
        self.line = 1 + text.count("\n", 0, position)

    def go(self, position: int) -> None:
        """Move on."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def next_begin(self) -> int:
        """Where the next object begins as an entry does, here or later; the end if there is none."""
        index = bisect_left(self.begins, self.position)
        return self.begins[index] if index < len(self.begins) else len(self.text)

    def entry(self) -> tuple[Any, str]:
        """The entry that begins here, or what is wrong with it; goes behind it, or to where the next one begins."""
        begin = self.position
        after = bisect_right(self.begins, begin)
        ends = [*self.begins[after : after + NESTED], len(self.text)][:NESTED]
        problem = ""
        for end in ends:
            piece = self.text[begin:end]
            try:
                entry, length = DECODER.raw_decode(piece)
            except json.JSONDecodeError as error:
                problem = problem or str(error).partition(": line")[0]
                if error.pos < len(piece.rstrip()):  # it is wrong, and not merely not over
                    break
            except (ValueError, RecursionError) as error:
                problem = str(error)
                break
            else:
                self.go(begin + length)
                return entry, ""
        self.go(ends[0])
        return None, problem


def first_key(line: str) -> str:
    """The key that the object at the start of a line begins with, in its quotes; empty where there is none."""
    found = FIRST_KEY.match(line.lstrip())
    return found.group(1) if found else ""


def starts(text: str, key: str) -> list[int]:
    """Where objects begin with a key."""
    pattern = rf"\{{\s*{re.escape(key)}\s*:"
    return [found.start() for found in re.finditer(pattern, text)] if key else []


def entry_key(text: str) -> str:
    """The key that entries begin with: of the sound objects near the start, those of this key cover the most text."""
    cover: dict[str, int] = {}
    for found in islice(FIRST_KEY.finditer(text), 200):
        try:
            _, end = DECODER.raw_decode(text[found.start() : found.start() + 2**20])
        except (ValueError, RecursionError):
            continue
        cover[found.group(1)] = cover.get(found.group(1), 0) + end
    return max(cover, key=cover.get, default="")

"""Damaged row files and odd pictures: every row is read, left out or called unread, and the check ends and says so.

    python -m tests.campaigns.data --count 2000 [--minutes 20] [--seed 0] [--write docs/reliability.md]

A folder in a released shape is damaged in one to three ways whose rows we can count ourselves, and `python -m
datamodules.check` reads it. Rows that were read, left out and unread must be all that stand in the file; the check must
end, without a traceback, whatever lies where a file is expected: a pipe nobody writes to, a loop of links, a device.
"""

from __future__ import annotations

import codecs
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns import forked
from tests.campaigns.odd_pictures import damaged, odd_picture
from tests.campaigns.tally import Tally, arguments, last_line, numbered
from tests.datamodules import released_shapes as shapes

PATIENCE = 30.0
"""Seconds after which a check of a few rows counts as hung."""
ROWS = 12
ACCOUNT = re.compile(r"(\d+) read \+ (\d+) left out\b.*?\+ (\d+) unread = (\d+) rows")
BYTES = (
    b"\x00",
    b"\xff",
    b"\xe9",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b'"',
    b"'",
    b"\\",
    b"{",
    b",",
    b";",
    b"\t",
    b"\xe2\x80\xae",
)
NOT_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "outside": lambda path: path.symlink_to("/etc/passwd"),
    "nothing": lambda path: path.symlink_to("nowhere"),
    "empty": lambda path: path.write_bytes(b"") and None,
}


@dataclass
class Set:
    """A folder of rows and pictures.

    Attributes:
        name: class path of its DataModule.
        file: the row file that is damaged, relative to the root.
        header: lines above the rows.
        lines: the rows.
    """

    name: str
    file: str
    header: list[bytes]
    lines: list[bytes]


def made(draw: random.Random, root: Path) -> Set:
    """A sound set: JSON lines or CSV."""
    if draw.random() < 0.5:
        shapes.write_lines(root / "train.jsonl", [shapes.mmedexpert_row(i) for i in range(ROWS)])
        for i in range(ROWS // 2):
            shapes.picture(root / "images" / f"{i}.png", i)
        content = (root / "train.jsonl").read_bytes()
        return Set("datamodules.mmedexpert.MMedExpert", "train.jsonl", [], content.splitlines())
    for number, split in enumerate(("train", "test")):
        rows = [shapes.pmc_vqa_row(i, split, "v1") for i in range(ROWS)]
        shapes.write_csv(root / ("train.csv" if split == "train" else "test_clean.csv"), rows)
        for i, row in enumerate(rows):
            shapes.picture(root / "images" / row["Figure_path"], 100 * number + i)
    head, *lines = (root / "train.csv").read_bytes().splitlines()
    return Set("datamodules.pmc_vqa.PMCVQA", "train.csv", [head], lines)


def damage(draw: random.Random, one: Set) -> str:
    """Spoil some rows; how many there are stays known, because no line break is made within one."""
    way = draw.choice(("byte", "byte", "cut", "doubled", "blank", "value", "mark"))
    at = draw.randrange(len(one.lines))
    line = one.lines[at]
    where = draw.randrange(len(line) + 1)
    if way == "byte":
        one.lines[at] = line[:where] + draw.choice(BYTES) + line[where + draw.randint(0, 1) :]
    elif way == "cut":
        one.lines[at] = line[: max(1, where)]
    elif way == "doubled":
        one.lines.insert(at, line)
    elif way == "blank":
        one.lines.insert(at, b"")
    elif way == "value":
        one.lines[at] = re.sub(rb"[A-Za-z]+ \d+", draw.choice((b"nan", b"", b"9" * 400, b"x" * 200_000)), line)
    elif way == "mark":
        first = one.header or one.lines
        first[0] = b"\xef\xbb\xbf" + first[0]
    return way


def spoil_picture(draw: random.Random, seed: int, root: Path) -> str:
    """Put something else in place of a picture, or of a whole row file."""
    pictures = sorted((root / "images").iterdir())
    path = draw.choice(pictures)
    kind = draw.choice(("odd", "odd", "damaged", *NOT_FILES))
    path.unlink()
    if kind in NOT_FILES:
        NOT_FILES[kind](path)
    else:
        path.write_bytes(odd_picture(seed).content if kind == "odd" else damaged(seed))
    return f"picture: {kind}"


def play(seed: int, folder: Path) -> tuple[str, Iterator[tuple[str, str]]]:
    """Make, damage and check one set.

    Returns:
        Its kind, and (column, what was seen) of everything that must not be.
    """
    draw, root = random.Random(seed), folder / "set"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    one = made(draw, root)
    if draw.random() < 0.5:
        kind = spoil_picture(draw, seed, root)
    elif draw.random() < 0.15:
        kind = draw.choice(list(NOT_FILES))
        (root / one.file).unlink()
        NOT_FILES[kind](root / one.file)
        kind, one.lines = f"row file: {kind}", []
    else:
        ways = sorted({damage(draw, one) for _ in range(draw.randint(1, 3))})
        kind = f"{Path(one.file).suffix[1:]} rows"
        end = draw.choice((b"\n", b"\r\n"))
        content = end.join([*one.header, *one.lines])
        (root / one.file).write_bytes(content + end * (draw.random() < 0.8))
        kind += ": several" if len(ways) > 1 else f": {ways[0]}"
    setting = f"on_bad_row={draw.choice(('skip', 'fail'))}"
    words = ("datamodules.check", one.name, f"root={root}", setting, "--json", "found.json")
    (folder / "found.json").unlink(missing_ok=True)
    ended = forked.run(words, folder, patience=PATIENCE)
    return kind, judged(ended, folder / "found.json", one)


def judged(ended: forked.Ended, report: Path, one: Set) -> Iterator[tuple[str, str]]:
    """What is wrong with how a check ended."""
    if ended.hung:
        yield "hangs", f"no end after {PATIENCE:.0f} s"
        return
    if "Traceback (most recent call last)" in ended.output:
        yield "tracebacks", last_line(ended.output)
    if ended.code not in (0, 1, 2):
        yield "different", f"exit code {ended.code}: {last_line(ended.output)}"
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", ended.output):
        yield "different", "control characters go to the terminal"
    rows = sum(bool(line.removeprefix(codecs.BOM_UTF8).strip()) for line in one.lines)
    if ended.code == 2 or not rows or not report.exists():
        return
    accounts = [tuple(map(int, found)) for found in ACCOUNT.findall(ended.output)]
    if any(sum(parts) != whole for *parts, whole in accounts):
        yield "silent losses", f"an account that does not add up: {accounts}"
    stand = rows + (ROWS if one.header else 0)  # the test split's file, which is whole
    if accounts and (counted := sum(whole for *_, whole in accounts)) != stand:
        yield "silent losses", f"{counted} rows are accounted for, {stand} stand in the files"
    splits = json.loads(report.read_text("utf-8"))["splits"].values()
    if not accounts and (counted := sum(s["examples"] + s["bad_rows"] for s in splits)) < stand:
        yield "silent losses", f"{counted} rows are examples or bad, {stand} stand in the files"


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if anything was found that must not be."""
    options = arguments(__doc__, 2000, words)
    forked.preload(("artifacts", "configs", "datamodules"), ())
    tally = Tally("data", "sets", options)
    work = Path(tempfile.mkdtemp(prefix="data-")).resolve()
    try:
        for seed in numbered(options, tally):
            kind, found = play(seed, work)
            tally.add(kind, seed, found)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tally.end(options.write)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

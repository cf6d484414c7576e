"""Counts of a campaign: a line while it goes on, a table at its end, a section of a page."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("torn", "different", "tracebacks", "hangs", "silent losses", "programs started")
"""What must not be: files cut off; results other than those of an undisturbed run; Python's tracebacks; commands that
do not end; results or rows that are gone and nobody said so; programs, or modules of strangers, that were started."""
ROOT = Path(__file__).resolve().parents[2]


def arguments(description: str, count: int, words: Sequence[str] | None = None, **more: str) -> argparse.Namespace:
    """The command line that campaigns share.

    Args:
        description: of the campaign.
        count: how many cases a full run has.
        words: the arguments; the process's own if not given.
        more: name -> help of a further text option.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count, help=f"cases; {count} if not given")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many, whatever --count says")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; case i has seed + i")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into its section of this page")
    for name, text in more.items():
        parser.add_argument(f"--{name}", default="", help=text)
    return parser.parse_args(words)


@dataclass
class Tally:
    """Counts per kind of case."""

    name: str
    """Of the campaign: its section, and its line."""
    unit: str
    """What is counted, such as kills."""
    options: argparse.Namespace
    """As `arguments` gives them."""
    cases: Counter[str] = field(default_factory=Counter)
    bad: Counter[tuple[str, str]] = field(default_factory=Counter)
    seeds: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences for the page, below the table."""
    begun: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def add(self, kind: str, seed: int, found: Iterable[tuple[str, str]] = (), *, cases: int = 1) -> None:
        """Count a case.

        Args:
            kind: its row of the table.
            seed: that repeats it.
            found: (column, what was seen) of everything that must not be.
            cases: how many it counts as.
        """
        self.cases[kind] += cases
        self.seeds.append(seed)
        found = list(found)
        for column in sorted({column for column, _ in found}):
            self.bad[kind, column] += 1
        for column, text in found:
            line = f"seed {seed} ({kind}): {column}: {text}"
            self.findings.append(line)
            print(f"\n{line}", file=sys.stderr, flush=True)

    def tell(self, done: int, options: argparse.Namespace, *, last: bool = False) -> None:
        """One line of progress, at most every ten seconds: over itself on a terminal, below the last one in a log."""
        seconds = time.monotonic() - self.begun
        if not done or (seconds - self.told < 10 and not last):
            return
        self.told = seconds
        left = max(0.0, min(seconds / done * (options.count - done), 60 * options.minutes - seconds))
        line = f"{done} of {options.count}, {len(self.findings)} findings, {seconds:.0f} s, about {left:.0f} s left"
        print(f"{self.name}: {line}", end="\r" if os.isatty(2) else "\n", file=sys.stderr, flush=True)

    @property
    def rows(self) -> list[list[str]]:
        """The table's rows, the sum last."""
        rows = [
            [kind, str(self.cases[kind]), *(str(self.bad[kind, column]) for column in COLUMNS)]
            for kind in sorted(self.cases)
        ]
        sums = [str(sum(n for (_, c), n in self.bad.items() if c == column)) for column in COLUMNS]
        return [*rows, ["all", str(sum(self.cases.values())), *sums]]

    def table(self) -> str:
        """In Markdown."""
        head = [self.name, self.unit, *COLUMNS]
        lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *self.rows]]
        return "\n".join(lines)

    def end(self, page: Path | None) -> int:
        """Print the table, write it where that was asked for; the exit code."""
        print(f"\n{self.table()}")
        for line in self.findings:
            print(line)
        if page is not None:
            write_section(page, self.name, self.section())
        return 1 if self.findings else 0

    def section(self) -> str:
        """What the page says of this campaign; no dates, so that the same counts are the same text."""
        seeds = f"seeds {min(self.seeds)} to {max(self.seeds)}" if self.seeds else "no case"
        parts = [
            f"`python -m tests.campaigns.{self.name} --count {self.options.count}`, {seeds}, commit {commit()}.",
            self.table(),
            *self.notes,
        ]
        return "\n\n".join(filter(None, parts))


def commit() -> str:
    """The checked-out commit, and whether tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout

    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    return f"{git('rev-parse', '--short=10', 'HEAD').strip() or 'unknown'}{' with changes' if changed else ''}"


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between a campaign's two marks in a page; without them it is added at the end."""
    marks = f"<!-- campaign {name} -->", f"<!-- end of campaign {name} -->"
    section = f"{marks[0]}\n{text}\n{marks[1]}"
    before = page.read_text(encoding="utf-8") if page.exists() else "# Reliability\n"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    after, found = pattern.subn(lambda _: section, before)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(after if found else f"{before.rstrip()}\n\n## {name.capitalize()}\n\n{section}\n", encoding="utf-8")


def numbered(options: argparse.Namespace, tally: Tally) -> Iterator[int]:
    """Seeds, one per case, with a line that tells how far it is and how long it will take."""
    for index in range(options.count):
        yield options.seed + index
        tally.tell(index + 1, options, last=index + 1 == options.count)
        if time.monotonic() - tally.begun > 60 * options.minutes:
            break


def last_line(output: str) -> str:
    """The last line that says something, shortened."""
    return next((line.strip()[:300] for line in reversed(output.splitlines()) if line.strip()), "no output")

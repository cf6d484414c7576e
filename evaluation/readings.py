"""What each reader says to each string: where they disagree comes first.

    python -m evaluation.readings                       the table of strings that the readings are held to
    python -m evaluation.readings my_strings.yaml       a table of the same form
    python -m evaluation.readings runs/evaluate         every answer of an experiment, or a file of predictions
    python -m evaluation.readings runs/evaluate --limit 0 --length 400      all of them, and more of each

A reader's cell is the letter that it reads, or in brackets why it reads none. MedEvalKit asks whether a given letter is
right: its cell holds every letter that it would call right. Exit code 1 where the table expects something else.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from evaluation.answers import LETTERS, extract
from evaluation.official import medevalkit, medxpertqa, omnimedvqa
from evaluation.predictions import Prediction, read_predictions
from evaluation.scorers import by_reading
from guards.arguments import Parser
from guards.printable import printable_lines, printable_whole

TABLE = Path(__file__).with_name("strings.yaml")
READERS = ("strict", "lenient", "medxpertqa", "omnimedvqa", "medevalkit")


@dataclass(frozen=True)
class Reading:
    """One string with what every reader makes of it.

    Attributes:
        text: the completion.
        cells: reader -> the letter, or "(reason)"; readers that need options are left out where there are none.
        expected: reader -> what a table, read by hand, holds; of an experiment, the right answer under "right".
        where: the options' number, or the question.
    """

    text: str
    cells: dict[str, str]
    expected: dict[str, str]
    where: str

    @property
    def wrong(self) -> bool:
        """A table expects something else."""
        return any(self.cells[name] != said for name, said in self.expected.items() if name in self.cells)

    @property
    def disagreement(self) -> int:
        """3 where strict and lenient differ, 2 where any two read different answers, 1 where only some read, else 0."""
        letters = {cell for cell in self.cells.values() if not cell.startswith("(")}
        unread = sum(cell.startswith("(") for cell in self.cells.values())
        ours = {cell if not cell.startswith("(") else "" for cell in (self.cells["strict"], self.cells["lenient"])}
        return 3 if len(ours) > 1 else 2 if len(letters) > 1 else int(bool(letters and unread))


def read_all(text: str, options: Sequence[str]) -> dict[str, str]:
    """What every reader makes of a string under options."""
    shown = LETTERS[: len(options)]
    cells = {
        mode: (read := extract(text, options, mode)).letter or f"({read.reason})" for mode in ("strict", "lenient")
    }
    cells["medxpertqa"] = medxpertqa.letter(text, len(options)) or "(nothing)"
    nearest = omnimedvqa.most_similar(text, options)
    cells["omnimedvqa"] = "(nothing)" if nearest is None else LETTERS[nearest]
    counted = "".join(letter for letter in shown if medevalkit.multiple_choice(text, options, letter).right)
    cells["medevalkit"] = counted or "(nothing)"
    return cells


def of_table(path: Path) -> list[Reading]:
    """Readings of a table: groups of options with rows [string, strict, lenient], or [string, lenient] without tags.

    Raises:
        ValueError: the file has another form.
    """
    try:
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = [(tuple(map(str, group["options"])), list(map(str, row))) for group in groups for row in group["rows"]]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a list of groups with `options` and `rows` ({type(error).__name__})") from error
    found = []
    for options, row in rows:
        if len(row) not in (1, 2, 3):
            raise ValueError(f"{path}: a row holds a string and at most two readings, got {row!r}")
        expected = {"lenient": row[-1]} if len(row) > 1 else {}
        expected |= {"strict": row[1] if len(row) == 3 else "no_think"} if len(row) > 1 else {}
        spelled = {name: said if said in LETTERS else f"({said})" for name, said in expected.items()}
        found.append(Reading(row[0], read_all(row[0], options), spelled, f"{len(options)} options"))
    return found


def of_predictions(predictions: Iterable[Prediction]) -> list[Reading]:
    """Readings of an experiment's answers."""
    found = []
    for item in predictions:
        if item.options:
            cells = read_all(item.completion, item.options)
        else:
            read = {mode: by_reading(item, mode) for mode in ("strict", "lenient")}
            cells = {mode: outcome.answered or f"({outcome.reason})" for mode, outcome in read.items()}
        right = item.answer_letter or item.answer
        found.append(Reading(item.completion, cells, {"right": right}, f"{item.model} {item.question_id}"))
    return found


def shown(readings: Sequence[Reading], limit: int, length: int) -> str:
    """Readings as text, those first that go against a table, then by disagreement; then how often readers agree."""
    ordered = sorted(readings, key=lambda one: (-one.wrong, -one.disagreement))
    lines = []
    for one in ordered[: limit or None]:
        right = {"right": one.expected["right"]} if "right" in one.expected else {}
        cells = "  ".join(f"{name} {cell}" for name, cell in (one.cells | right).items())
        against = f"  EXPECTED {one.expected}" if one.wrong else ""
        text = one.text if len(one.text) <= length else f"{one.text[: length // 2]} … {one.text[-length // 2 :]}"
        lines += [repr(text)[1:-1], f"    {cells}  [{one.where}]{against}"]
    if len(ordered) > len(lines) // 2:
        lines.append(f"… and {len(ordered) - len(lines) // 2} more (--limit 0 shows all)")
    counts = Counter(one.disagreement for one in readings)
    lines += [
        "",
        f"{len(readings)} strings; strict and lenient differ on {counts[3]}, others on {counts[2] + counts[1]}",
    ]
    for name in READERS:
        read = [one.cells[name] for one in readings if name in one.cells]
        if read:
            unread = sum(cell.startswith("(") for cell in read)
            lines.append(f"{name:10} reads {len(read) - unread} of {len(read)}")
    wrong = sum(one.wrong for one in readings)
    return "\n".join([*lines, *([f"{wrong} rows are not read as the table expects"] if wrong else [])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if a row is not read as its table expects; 2 if the file cannot be read.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=TABLE, help="table (.yaml), experiment or predictions")
    parser.add_argument("--limit", type=int, default=40, help="strings that are shown; 0 shows all")
    parser.add_argument("--length", type=int, default=160, help="characters shown of each")
    given = parser.parse_args(arguments)
    try:
        tabled = given.file.suffix in (".yaml", ".yml")
        readings = of_table(given.file) if tabled else of_predictions(read_predictions(given.file))
    except (OSError, ValueError) as error:
        print(printable_lines(f"readings: {error}"), file=sys.stderr)
        return 2
    print(printable_whole(shown(readings, given.limit, given.length)))
    return int(any(one.wrong for one in readings))


if __name__ == "__main__":
    sys.exit(main())

"""The report on one judge: a page, every number in a table, the release's own table, and a figure."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from artifacts.durable import write_text
from evaluation.report_files import markdown, percent
from judging.calibration import reliability, section
from judging.cases import DIMENSIONS, RELEASED_CASES, TAGS
from judging.measures import Measure, beside, macro, measures
from judging.official import organ_accuracy
from judging.sheet import Judged, Sheet, rows_of
from judging.verdicts import RULES

ALL = "all six"
NAMED = (*DIMENSIONS, ALL)
MICRO, MACRO = "all cases", "mean of organs"
Found = Mapping[tuple[str, str, str, str], Measure]
"""By kind, group, dimension and measure, see `Cell`."""
MOST_VALUES = 24
"""Values of a tag that the page has room for; every value is in the table of numbers."""
PAGE, NUMBERS, OFFICIAL = "report.md", "measures.csv", "released.csv"
FIGURE, RELIABILITY = "report.png", "reliability.png"


@dataclass(frozen=True)
class Cell:
    """One number of the report.

    Attributes:
        kind: what the group is: `all cases`, `mean of organs`, `organ`, or a tag's name.
        group: which one.
        dimension: of the six, or `all six`.
        measure: see `judging.measures.measures`.
        found: the number.
    """

    kind: str
    group: str
    dimension: str
    measure: str
    found: Measure


def groups(cases: Sequence[Judged]) -> Iterator[tuple[str, str, list[Judged]]]:
    """(kind, name, cases) of every group that is reported, the organs first."""
    yield MICRO, MICRO, list(cases)
    for organ in sorted({case.about.organ for case in cases}):
        yield "organ", organ, [case for case in cases if case.about.organ == organ]
    for tag in TAGS:
        for value in sorted({case.about.tags[tag] for case in cases if tag in case.about.tags}):
            yield tag, value, [case for case in cases if case.about.tags.get(tag) == value]


def cells(sheet: Sheet, confidence: float = 0.95) -> list[Cell]:
    """Every number of a judge: groups x dimensions x measures, and the means of organs."""
    found = [
        Cell(kind, name, dimension, measure, measured)
        for kind, name, cases in groups(sheet.cases)
        for dimension, chosen in [*((one, (one,)) for one in DIMENSIONS), (ALL, DIMENSIONS)]
        for measure, measured in measures(rows_of(cases, chosen), confidence).items()
    ]
    organs = [cell for cell in found if cell.kind == "organ"]
    for dimension in NAMED:
        for measure in dict.fromkeys(cell.measure for cell in organs if cell.measure != "kappa"):
            parts = [cell.found for cell in organs if (cell.dimension, cell.measure) == (dimension, measure)]
            found.append(Cell(MACRO, MACRO, dimension, measure, macro(parts)))
    return found


def write_report(sheet: Sheet, out: Path) -> str:
    """Write a judge's report into a folder; returns the page."""
    found = cells(sheet)
    page = page_of(sheet, found)
    write_text(out / PAGE, page)
    write_text(out / NUMBERS, as_csv(found))
    if sheet.mode == "pair" and all(len(case.about.truth) == len(DIMENSIONS) for case in sheet.cases):
        write_text(out / OFFICIAL, released_csv(sheet))
    from judging.figure import figure  # matplotlib, which a wrong folder need not wait for

    figure(sheet, found).savefig(out / FIGURE, dpi=150)
    if sheet.mode == "pair" and (drawn := reliability(sheet)) is not None:
        drawn.savefig(out / RELIABILITY, dpi=150)
    return page


def as_csv(found: Sequence[Cell]) -> str:
    """Every number in full, as fractions; empty where there is nothing to measure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "group", "dimension", "measure", "value", "low", "high", "n"])
    for cell in found:
        numbers = [
            "" if math.isnan(number) else number for number in (cell.found.value, cell.found.low, cell.found.high)
        ]
        writer.writerow([cell.kind, cell.group, cell.dimension, cell.measure, *numbers, cell.found.n])
    return out.getvalue()


def released_csv(sheet: Sheet) -> str:
    """The release's own table: organs x dimensions, 4 digits, the order given, its reading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["modality", "model", *(f"{name}_acc" for name in DIMENSIONS)])
    for organ in sorted({case.about.organ for case in sheet.cases}):
        held = [case for case in sheet.cases if case.about.organ == organ]
        truths = {case.about.question_id: case.about.truth for case in held}
        row = organ_accuracy(truths, [(case.about.question_id, case.reply) for case in held])
        writer.writerow([organ, sheet.name, *(row[name] for name in DIMENSIONS)])
    return out.getvalue()


def shown(one: Measure) -> str:
    """A measure for reading, in percent with its interval; a dash where there is nothing to measure."""
    if math.isnan(one.value):
        return "-"
    return f"{100 * one.value:.1f}" if math.isnan(one.low) else percent(one.value, one.low, one.high)


def page_of(sheet: Sheet, found: Sequence[Cell]) -> str:
    """The report as a page of Markdown."""
    at = {(cell.kind, cell.group, cell.dimension, cell.measure): cell.found for cell in found}
    parts = [f"# {sheet.name}\n", *about(sheet)]
    parts += ["## Accuracy, percent\n", accuracy_table(sheet, at), ACCURACY_TOLD]
    parts += ["## Both orders, percent\n", orders_table(sheet, at)]
    parts += ["## Length, percent\n", table(at, LENGTH), LENGTH_TOLD]
    parts += section(sheet)
    parts += ["## How replies were read\n", reading_table(sheet)]
    for kind in ("organ", *TAGS):
        names = list(dict.fromkeys(cell.group for cell in found if cell.kind == kind))
        if kind == "organ" or 1 < len(names) <= MOST_VALUES:
            sizes = {name: len(cases) for own, name, cases in groups(sheet.cases) if own == kind}
            parts += [f"## Accuracy by {kind.replace('_', ' ')}, percent\n", group_table(kind, sizes, at)]
    absent = [tag for tag in TAGS[:2] if not any(tag in case.about.tags for case in sheet.cases)]
    parts += [f"The rows have no field {' and none '.join(absent)}, so there is no table by it.\n"] if absent else []
    return "\n".join(parts)


def accuracy_table(sheet: Sheet, at: Found) -> str:
    """Accuracy of every dimension, and of the rules beside it."""
    rows = {name: rows_of(sheet.cases, (name,)) for name in DIMENSIONS}
    plain = {name: beside(held) for name, held in rows.items() if len(held.truth)}
    counts = [len(rows[name].truth) for name in plain]
    rules = ("majority", "longer_answer")
    plain[ALL] = {key: fmean([held[key] for held in plain.values()], counts) for key in rules}
    lines = [
        [
            name,
            shown(at[MICRO, MICRO, name, "accuracy"]),
            shown(at[MACRO, MACRO, name, "accuracy"]),
            *(shown(at[MICRO, MICRO, name, measure]) for measure in ("strict_accuracy", "accuracy_answered", "kappa")),
            *(f"{100 * plain[name][key]:.1f}" if name in plain else "-" for key in rules),
        ]
        for name in NAMED
    ]
    read = ("strictly read", "of those answered", "κ x 100")
    return markdown(["dimension", MICRO, MACRO, *read, "majority letter", "longer answer"], lines) + "\n"


def group_table(kind: str, sizes: Mapping[str, int], at: Found) -> str:
    """Accuracy of each group, by how many cases it has, on every dimension."""
    lines = [
        [name, str(size), *(shown(at[kind, name, one, "accuracy"]) for one in NAMED)] for name, size in sizes.items()
    ]
    return markdown([kind, "cases", *NAMED], lines) + "\n"


ACCURACY_TOLD = (
    "Right verdicts of all, in the order given; what could not be read is wrong. 95 % intervals, in which a case's "
    "verdicts and cases of one picture go together; `all six` is the mean of the verdicts. κ is Cohen's, with the "
    "physicians, of what was read. The last two columns are rules on the same cases: the more frequent letter (which "
    "has seen the truth) and the longer answer. Guessing gives 50.\n"
)
LENGTH = {
    "longer": "judge: longer",
    "longer_physicians": "physicians: longer",
    "accuracy_longer": "right where physicians chose the longer",
    "accuracy_shorter": "right where they chose the shorter",
}
LENGTH_TOLD = (
    "Over answers of unequal length in characters, and for the first two columns verdicts that could be read. A judge "
    "that chooses the longer answer more often than physicians do, and is right more often where they chose it, goes "
    "by length.\n"
)
ORDERS = {
    "accuracy": "order given",
    "accuracy_swapped": "swapped",
    "accuracy_mean": "both together",
    "both_right": "right in both",
    "consistent": "same answer in both",
    "first": "first shown",
}


def table(at: Found, columns: Mapping[str, str]) -> str:
    """Dimensions by measures, over all cases."""
    lines = [[name, *(shown(at[MICRO, MICRO, name, measure]) for measure in columns)] for name in NAMED]
    return markdown(["dimension", *columns.values()], lines) + "\n"


def orders_table(sheet: Sheet, at: Found) -> str:
    """Position bias and consistency, or why there are none."""
    if not sheet.both_orders:
        why = "answers were graded one by one" if sheet.mode == "score" else "the swapped order was not asked (orders)"
        return f"Not measured: {why}.\n"
    told = (
        "`same answer in both` and `first shown` are of verdicts that were read in both orders; without position bias "
        "the answer shown first gets 50 %. The release asks in the order given alone.\n"
    )
    return table(at, ORDERS) + "\n" + told


def about(sheet: Sheet) -> list[str]:
    """What was asked, in lines."""
    asked = sheet.asked
    wording = asked["wording"]
    words = (
        wording if wording.startswith("ours, version") and "\n" not in wording else "from a file (asked.json has it)"
    )
    who = ", ".join(f"{key} {value}" for key, value in asked["judge"].items())
    lines = [f"- judge: {who}", f"- mode: {asked['mode']}; wording: {words}"]
    pictures = len({case.about.cluster for case in sheet.cases})
    verdicts = sum(len(case.about.truth) for case in sheet.cases)
    lines.append(f"- {asked['cases']} cases, {verdicts} verdicts, {pictures} pictures")
    if verdicts < len(DIMENSIONS) * asked["cases"]:
        lines.append("- made pairs: whom a line calls physicians is the rule by which the answers were made")
    if asked["cases"] != RELEASED_CASES:
        lines.append(f"- the release has {RELEASED_CASES} cases: no figure here is the release's")
    if sheet.mode != "pair":
        lines.append("- this mode's reading is ours: the release reads pairs alone, and its figures are of pairs")
    if asked["left_out_rows"]:
        lines.append(
            f"- LEFT OUT: cases of {asked['left_out_rows']} rows that could not be used; no figure is the release's"
        )
    return [*lines, ""]


def reading_table(sheet: Sheet) -> str:
    """By which rule how many replies were read, and how many are ties or cut off."""
    counts = Counter(case.given.rule for case in sheet.cases)
    strictly = sum(bool(case.strict.verdicts) for case in sheet.cases)
    ties = sum(len(case.given.ties) for case in sheet.cases)
    cut = sum(case.truncated for case in sheet.cases)
    lines = [[rule, str(counts[rule]), f"{100 * counts[rule] / len(sheet.cases):.1f}"] for rule in RULES]
    told = f"Strictly read: {strictly} of {len(sheet.cases)}. Ties: {ties} verdicts. Cut off at the limit: {cut} cases."
    return markdown(["rule", "replies", "percent"], lines) + f"\n\n{told}\n"

"""What the check found, as JSON, as lines for a terminal, and as a page to look at."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from datamodules.batch import BadExampleError, load_image
from datamodules.check.audit import Audit, Item
from datamodules.check.overlap import Overlap
from datamodules.prompts import question_text
from evaluation.detectable import DISAGREEMENT, smallest_told

SAMPLES = 6
"""Questions shown per split."""
SIDE = 180
"""Longest side of a shown picture, in pixels."""
SHOWN = 200
"""Problems listed on the page; the JSON has all of them."""
COLUMNS = (
    ("examples", "questions"),
    ("bad_rows", "bad rows"),
    ("open_questions", "open"),
    ("patients", "patients"),
    ("with_traces", "with traces"),
    ("images", "pictures"),
    ("images_missing", "missing"),
    ("images_broken", "broken"),
    ("images_over_limits", "over limits"),
    ("images_outside", "outside"),
    ("images_opened", "opened"),
    ("duplicate_questions", "repeated questions"),
    ("duplicate_images", "repeated pictures"),
    ("contradictions", "contradictions"),
    ("random_guess", "random guess"),
    ("majority_guess", "majority guess"),
)
"""Key of the JSON, and what the page calls it."""
STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:90em}table{border-collapse:collapse}td,th{padding:.2em .6em;"
    "border-bottom:1px solid #ccc;text-align:right}td:first-child,th:first-child{text-align:left}.card{display:inline-"
    "block;vertical-align:top;width:26em;margin:.5em;padding:.6em;border:1px solid #ccc}pre{white-space:pre-wrap;"
    "max-height:16em;overflow:auto}.bad{color:#a00}.good{color:#060}"
)


def may_start(audits: Sequence[Audit], found: Sequence[Overlap]) -> bool:
    """Whether training may start on these sets."""
    return all(one.usable for one in audits) and not any(one.forbids for one in found)


def as_json(audits: Sequence[Audit], found: Sequence[Overlap]) -> dict[str, Any]:
    """Everything that was found; splits are named specialty/split where there are several sets.

    Rows of `problems` count from 1: the line of JSON lines, the entry of a list, the record under a CSV's header; row 0
    is the whole file.
    """
    alone = len(audits) == 1
    splits = {
        split if alone else f"{one.name}/{split}": counts
        for one in audits
        for split, counts in one.splits.items()
        if counts["examples"] or counts["bad_rows"]
    }
    return {
        "may_start": may_start(audits, found),
        "splits": splits,
        "problems": [
            {"file": p.file, "row": p.row, "reason": p.reason, **({} if alone else {"specialty": one.name})}
            for one in audits
            for p in one.problems
        ],
        "overlaps": [
            {
                "kind": one.kind,
                "train": one.train,
                "examined": one.examined,
                "questions": one.questions,
                "pairs": [list(pair) for pair in one.pairs],
                "forbids": one.forbids,
            }
            for one in found
        ],
        "doubts": [
            {"file": p.file, "row": p.row, "reason": p.reason, **({} if alone else {"specialty": one.name})}
            for one in audits
            for p in one.doubts
        ],
        "sets": {one.name: {**one.notes, "rows": rows_of(one.notes)} for one in audits},
    }


def as_lines(audits: Sequence[Audit], found: Sequence[Overlap]) -> Iterable[str]:
    """A summary for a terminal."""
    for one in audits:
        yield f"{one.name}{statement(one.notes)}"
        for split, counts in one.splits.items():
            if counts["examples"] or counts["bad_rows"]:
                yield f"  {split:5} {split_line(counts)}"
                if split == "test":
                    yield f"        {could_show(counts)}"
        for reason, number in one.notes.get("left_out", {}).items():
            yield f"  left out: {number} {reason}"
        for file, count in one.notes.get("rows", {}).items():
            yield f"  {file}: {count}"
        for sentence in one.notes.get("assumed", ()):
            yield f"  assumed: {sentence}"
        consequence = "left out by on_bad_row: skip" if one.usable else "not usable"
        if one.problems:
            yield f"  {len(one.problems)} PROBLEMS ({consequence}):"
            yield from (f"    {problem}" for problem in one.problems[:10])
        if one.doubts:
            yield f"  {len(one.doubts)} TO LOOK AT (used as they are):"
            yield from (f"    {doubt}" for doubt in one.doubts[:10])
    yield from (f"{'OVERLAP' if one.forbids else 'note'}: {one}" for one in found)
    yield "training may start" if may_start(audits, found) else "training may NOT start"


def rows_of(notes: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """File -> what became of its rows."""
    return {
        file: {**asdict(count), "left_out": count.left_out, "rows": count.rows}
        for file, count in notes.get("rows", {}).items()
    }


def statement(notes: Mapping[str, Any]) -> str:
    """The part of a release that was read, by name and count."""
    if not notes:
        return ""
    found, released = notes["found"].get("test", 0), notes["released"]
    return f" ({notes['subset']}, {found} of {released} released questions)" if released else f" ({notes['subset']})"


def could_show(counts: Mapping[str, Any]) -> str:
    """The smallest difference between two models that a test split could show."""
    points = smallest_told(counts["examples"], counts["patients"])
    seen = f"smallest visible difference between two models, in points: {points}"
    return f"{seen} (80 % power at 5 %, if {DISAGREEMENT:.0%} of the questions tell the two apart)"


def split_line(counts: Mapping[str, Any]) -> str:
    """A split in one line."""
    letters = " ".join(f"{letter} {share:.0%}" for letter, share in counts["letters"].items())
    troubles = [
        f"{counts[f'images_{t}']} {t.replace('_', ' ')}" for t in ("missing", "broken", "over_limits", "outside")
    ]
    text = (
        f"{counts['examples']} questions, {counts['bad_rows']} bad rows, {counts['patients']} patients, "
        f"{counts['images']} pictures ({', '.join(troubles)}); "
        f"{counts['duplicate_questions']} repeated questions, {counts['duplicate_images']} repeated pictures; "
        f"letters {letters or '-'}; guessing {counts['random_guess']:.1%}, the commonest letter "
        f"{counts['majority_guess']:.1%}"
    )
    if "tokens" in counts:
        held = counts["tokens"]
        cut = f", {held['cut_off']} over {held['limit']}" if held["limit"] else ""
        text += f"; tokens: median {held['median']}, longest {held['max']}{cut}"
    return text


def as_html(audits: Sequence[Audit], found: Sequence[Overlap]) -> str:
    """A page with the counts, the problems and a sheet of samples; every text of the data is escaped."""
    good = may_start(audits, found)
    verdict = "Training may start." if good else "Training may not start."
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>Data check</title><style>{STYLE}</style><h1>Data check</h1>",
        f"<p class='{'good' if good else 'bad'}'>{verdict}</p>",
        table(["split", *(name for _, name in COLUMNS)], list(count_rows(audits))),
        "<h2>Overlap of training with examination</h2>",
        listed([f"{'' if one.forbids else 'note: '}{one}" for one in found]),
    ]
    for one in audits:
        parts += [
            f"<h2>{html.escape(one.name)}</h2>",
            listed([f"{k}: {v}" for k, v in one.notes.items() if k != "rows"]),
        ]
        parts += [listed([f"{file}: {count}" for file, count in one.notes.get("rows", {}).items()])]
        parts += [f"<h3>{len(one.problems)} problems</h3>", listed(list(map(str, one.problems[:SHOWN])))]
        parts += [f"<h3>{len(one.doubts)} to look at</h3>", listed(list(map(str, one.doubts[:SHOWN])))]
        for split, counts in one.splits.items():
            if counts["examples"]:
                parts += [f"<h3>{split}</h3>", *histograms(counts), *map(card, one.items[split][:SAMPLES])]
    return "\n".join(parts) + "\n"


def count_rows(audits: Sequence[Audit]) -> Iterable[list[object]]:
    """One row per split for the table at the top."""
    for one in audits:
        for split, counts in one.splits.items():
            if counts["examples"] or counts["bad_rows"]:
                yield [f"{one.name}/{split}", *(counts[key] for key, _ in COLUMNS)]


def histograms(counts: Mapping[str, Any]) -> list[str]:
    """Letters, tags and lengths of a split."""
    rows = [["letter", *counts["letter_counts"]], ["questions", *counts["letter_counts"].values()]]
    parts = [table(rows[0], rows[1:])]
    for tag, values in counts["tags"].items():
        parts.append(f"<p>{html.escape(tag)}: {html.escape(', '.join(f'{k} {v}' for k, v in values.items()))}</p>")
    lengths = {name: counts[name] for name in ("characters", "tokens") if name in counts}
    return [*parts, *(f"<p>{name}: {html.escape(str(value))}</p>" for name, value in lengths.items())]


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; every cell is escaped."""

    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(cells, "td") for cells in rows) + "</table>"


def listed(lines: Sequence[str]) -> str:
    """An HTML list; every line is escaped."""
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else "<p>None.</p>"


def card(item: Item) -> str:
    """A question as a model gets it: pictures, text, the right answer, the place of its row."""
    example = item.example
    shown = [
        thumbnail(source) for source, known in zip(example.images, item.pictures, strict=True) if not known.trouble
    ]
    missing = [html.escape(picture.reason) for picture in item.pictures if picture.trouble]
    letter = f"{example.letter}) " if example.options else ""
    place = f"{item.file}, row {item.row}" if item.row else example.question_id
    return (
        f"<div class='card'>{''.join(shown)}<p class='bad'>{'<br>'.join(missing)}</p>"
        f"<pre>{html.escape(question_text(example))}</pre><p>right: {html.escape(letter + example.answer)}</p>"
        f"<p>{html.escape(place)}</p></div>"
    )


def thumbnail(source: Any) -> str:
    """A small picture inside the page."""
    try:
        image = load_image(source)
    except BadExampleError as error:  # not opened before, because the check was told to open only some
        return f"<p class='bad'>{html.escape(str(error))}</p>"
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'> "

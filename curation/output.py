"""The folder of a curated set, whole or not at all: data, rejections, counts, audit, datasheet."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from artifacts.durable import flush, folder_in_one_step
from curation.datasheet import datasheet
from curation.ledger import Ledger, Rejected, imbalance
from curation.pool import Row
from curation.settings import Settings, absolute_roots, resolved
from datamodules.batch import LETTERS, Example, image_key, load_image
from datamodules.mmedexpert import MMedExpert
from endpoints.chat import png

FORMAT = "curation/1"
COUNTS, REJECTED, AUDIT, SHEET, DATA = "counts.json", "rejected.jsonl", "audit.csv", "datasheet.md", "data"


@dataclass(frozen=True)
class Kept:
    """A row of the result.

    Attributes:
        row: the candidate.
        specialty: whose file it goes to.
        patient_id: linked over pools.
        reasoning: guideline -> trace.
        provenance: what the row says of its making.
    """

    row: Row
    specialty: str
    patient_id: str
    reasoning: Mapping[str, str]
    provenance: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """In the format of `datamodules.mmedexpert`."""
        example: Example = self.row.item.example
        tags = {name: value for name, value in example.tags.items() if value.strip()}
        return {
            "id": self.row.id,
            "specialty": self.specialty,
            "patient_id": self.patient_id,
            "images": [f"images/{picture.key}.png" for picture in self.row.item.pictures],
            "question": example.question,
            "options": dict(zip(LETTERS, example.options, strict=False)),
            "answer": example.letter,
            "reasoning": dict(self.reasoning),
            "tags": {name: value for name, value in tags.items() if name not in ("specialty", "source")},
            "provenance": dict(self.provenance),
        }


def write_result(
    settings: Settings, kept: Sequence[Kept], ledger: Ledger, agreement: Mapping[str, Any], audit: Sequence[Row]
) -> dict[str, Any]:
    """Write everything beside `out`, read it back, and put it there in one step.

    Args:
        settings: of the curation.
        kept: the result's rows.
        ledger: what became of every candidate.
        agreement: of rules and classifier.
        audit: questions for a person to look at.

    Returns:
        What counts.json holds.

    Raises:
        RuntimeError: a picture changed since the pool was read; or, a defect of ours, the counts do not add up or what
            was written cannot be read back.
        OSError: the disk is full or the folder cannot be written.
    """
    counts = {
        "format": FORMAT,
        "settings": resolved(settings),
        "gates": ledger.gates,
        "traces": {name: {**e, **{k: dict(sorted(e[k].items())) for k in ("rejected", "unknown")}}
                   for name, e in ledger.traces.items()},
        "agreement": dict(agreement),
        "kept": dict(sorted(Counter(one.specialty for one in kept).items())),
    }  # fmt: skip
    with folder_in_one_step(Path(settings.out)) as folder:
        write_data(folder / DATA, kept)
        write_lines(folder / REJECTED, map(rejection, ledger.rejected, repeat(absolute_roots(settings))))
        write_file(folder / COUNTS, [json.dumps(counts, indent=1, ensure_ascii=False), "\n"])
        write_file(folder / SHEET, [datasheet(settings, counts, [one.as_json() for one in kept])])
        write_audit(folder / AUDIT, audit)
        wrong = verify(folder)
        if wrong:
            raise RuntimeError("the curated set is not what it should be:\n  " + "\n  ".join(wrong))
    return counts


def write_data(folder: Path, kept: Sequence[Kept]) -> None:
    """One file per specialty, and every picture once, named by the hash of its pixels."""
    (folder / "images").mkdir(parents=True)
    for specialty in sorted({one.specialty for one in kept}):
        write_lines(folder / f"{specialty}.jsonl", (one.as_json() for one in kept if one.specialty == specialty))
    sources = {
        p.key: s for one in kept for p, s in zip(one.row.item.pictures, one.row.item.example.images, strict=True)
    }
    for key, source in sources.items():
        image = load_image(source)
        if image_key(image) != key:
            raise RuntimeError(f"{source}: the picture changed since the pool was read; run again")
        (folder / "images" / f"{key}.png").write_bytes(png(image))
        flush(folder / "images" / f"{key}.png")


def rejection(one: Rejected, roots: Sequence[str]) -> dict[str, str]:
    """A rejection as JSON; files are named below the pool's root, wherever that lies."""
    detail = one.detail
    for root in roots:
        detail = detail.replace(f"{root}/", "").replace(root, Path(root).name)
    return {**asdict(one), "detail": detail}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, one at a time."""
    write_file(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_file(path: Path, parts: Iterable[str]) -> None:
    """A text file on the disk; file names in it may hold any byte."""
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(parts)
    flush(path)


def write_audit(path: Path, rows: Sequence[Row]) -> None:
    """A sample per specialty, with an empty column for whoever looks at it."""
    columns = ("id", "specialty_by_rules", "why", "question", "options", "answer", "pictures", "reviewer")
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            example = row.item.example
            cells = [row.id, row.assigned.specialty, "; ".join(row.assigned.why), example.question,
                     " | ".join(example.options), example.answer, str(len(example.images)), ""]  # fmt: skip
            writer.writerow([harmless(cell) for cell in cells])
    flush(path)


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def verify(folder: Path) -> list[str]:
    """What is wrong with a finished folder: counts that do not add up, rows that do not load; empty when nothing is."""
    try:
        counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        if counts["format"] != FORMAT:
            return [f"{COUNTS}: format is {counts['format']!r}, expected {FORMAT!r}"]
        files = sorted((folder / DATA).glob("*.jsonl"))
        kept = {path.stem: len(path.read_text(encoding="utf-8").split("\n")) - 1 for path in files}
        rejected = len((folder / REJECTED).read_text(encoding="utf-8").split("\n")) - 1
        wrong = imbalance(counts, kept, rejected)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return [f"{folder}: is no finished curation ({type(error).__name__}: {error})"]
    if files:
        scan = MMedExpert(MMedExpert.Config(root=str(folder / DATA))).scan
        wrong += [str(fault) for fault in scan.faults]
        wrong += [f"{place}: no such picture {source}" for place, source in missing(scan)]
        if len(scan.places) != sum(kept.values()) or scan.left_out:
            wrong.append(f"{len(scan.places)} of {sum(kept.values())} rows load; left out: {dict(scan.left_out)}")
    return wrong


def missing(scan: Any) -> list[tuple[str, Path]]:
    """(row id, file) of pictures that are not there."""
    held = (example for split in scan.examples.values() for example in split)
    return [(e.question_id, source) for e in held for source in e.images if not Path(source).is_file()]

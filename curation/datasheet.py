"""The datasheet of a curated set, filled in with what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from curation.settings import Settings

LIMITS = (
    "No physician has read the traces. A trace that passes every gate has the right form and the right conclusion; "
    "whether each step is true, and whether it was seen in the picture, is not known.",
    "The questions and answers are those of the pools; a wrong answer there is a wrong answer here, and a teacher that "
    "agrees with it is kept.",
    "Keeping only what the teacher answers rightly, and the base answers neither always nor never, selects questions: "
    "the set is no sample of a clinic, and accuracies on it say nothing about one.",
    "Open questions are left out. The lists of words behind specialties and guidelines are English.",
    "Looks are compared by a difference hash: a crop, a rotation or another slice of an examined study is not seen.",
    "Pictures are stored as pixels without their files' metadata; what is burnt into the pixels is still there.",
)


def datasheet(settings: Settings, counts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown.

    Args:
        settings: of the curation.
        counts: what counts.json holds.
        rows: the result's rows as JSON.

    Source: the questions are those of Gebru et al., "Datasheets for Datasets", arXiv:1803.09010.
    """
    first, last = next(iter(counts["gates"].values())), list(counts["gates"].values())[-1]
    parts = [
        "# Datasheet",
        "## Motivation",
        "Multiple-choice questions of four medical specialties with worked reasoning under named guidelines, to train "
        "one expert per specialty. Built like MMedExpert (arXiv:2601.10949), which is not released; how that set was "
        "made is not published either, so every step and number here is this code base's own choice.",
        "## Composition",
        f"{last['out']} of {first['in']} candidates were kept.",
        *composition(rows, settings.guidelines),
        "## Collection",
        table(
            ["pool", "from", "licence", "kept"],
            [[name, pool.source, pool.licence, sum(row["provenance"]["pool"] == name for row in rows)]
             for name, pool in settings.pools.items()],
        ),
        "Every row carries its pool's licence; the strictest of them binds whoever uses the set as a whole.",
        f"Traces were written by {described(counts['settings']['teacher'])}, which saw pictures, question, options and "
        "one guideline's instruction, and not the right answer.",
        *specialty_lines(counts),
        "## Preprocessing and cleaning",
        *gate_tables(counts),
        "## Uses",
        "Training and validation. It is not an examination: the examinations it was kept apart from are "
        + (", ".join(settings.test_sets) or "none but the pools' own test and validation splits") + ".",
        "## Known limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def composition(rows: Sequence[Mapping[str, Any]], guidelines: Sequence[str]) -> list[str]:
    """Counts per specialty."""
    lines = []
    for specialty in sorted({row["specialty"] for row in rows}):
        held = [row for row in rows if row["specialty"] == specialty]
        letters = Counter(row["answer"] for row in held)
        lines.append([
            specialty, len(held), len({row["patient_id"] for row in held}),
            len({image for row in held for image in row["images"]}),
            *(sum(name in row["reasoning"] for row in held) for name in guidelines),
            " ".join(f"{letter} {count}" for letter, count in sorted(letters.items())),
        ])  # fmt: skip
    head = ["specialty", "questions", "patients", "pictures", *(f"traces: {name}" for name in guidelines), "answers"]
    words = sorted(len(text.split()) for row in rows for text in row["reasoning"].values())
    median = f"Median length of a trace: {words[len(words) // 2]} words." if words else ""
    return [table(head, lines), median] if lines else ["Nothing was kept."]


def specialty_lines(counts: Mapping[str, Any]) -> list[str]:
    """How specialties were assigned, and how far rules and classifier agree."""
    decide, agreement = counts["settings"]["decide"], counts["agreement"]
    lines = [f"Specialties were decided by {decide}; audit.csv holds a sample for a person to check."]
    if agreement:
        kappa = agreement["kappa"]
        shown = "not defined" if kappa is None else f"{kappa:.3f}"
        lines.append(f"Rules and classifier were compared on {agreement['n']} questions: Cohen's kappa {shown}.")
        labels = sorted({label for pair in agreement["table"] for label in (pair[0], pair[1])})
        cells = {(a, b): n for a, b, n in agreement["table"]}
        lines.append(
            table(["rules \\ classifier", *labels], [[a, *(cells.get((a, b), 0) for b in labels)] for a in labels])
        )
    return lines


def gate_tables(counts: Mapping[str, Any]) -> list[str]:
    """What came, went and was stopped, gate by gate and trace by trace."""
    gates = [[name, e["in"], e["out"], reasons(e["rejected"])] for name, e in counts["gates"].items()]
    for name, entry in counts["gates"].items():
        gates += [[f"{name}, {s}", e["in"], e["out"], reasons(e["rejected"])] for s, e in entry["by_specialty"].items()]
    traces = [
        [name, e["in"], e["accepted"], reasons(e["rejected"]), reasons(e["unknown"])]
        for name, e in counts["traces"].items()
    ]
    return [
        table(["gate", "in", "out", "rejected"], gates),
        "Replies that could not be used (cut off, empty, refused, malformed) are unknown, not wrong.",
        table(["guideline", "replies", "accepted", "rejected", "unknown"], traces),
    ]


def reasons(counted: Mapping[str, int]) -> str:
    """Reasons with their counts, the most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counted.items(), key=lambda pair: -pair[1])) or "–"


def described(teacher: Mapping[str, Any]) -> str:
    """A teacher in a line."""
    held = {name: value for name, value in teacher["init_args"].items() if name not in ("system", "key_variable")}
    return f"`{teacher['class_path']}` ({', '.join(f'{name} {value}' for name, value in held.items())})"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; cells cannot break out of it."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])

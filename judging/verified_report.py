"""What a verifier makes of several answers per question, as a page, a table of numbers and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation.choosing import CHOICES, Line, mean
from evaluation.report_files import markdown, percent
from evaluation.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COVERAGES = (0.5, 0.8, 1.0)
"""Shares of the questions at which accuracy is shown."""
TOLD = (
    "Accuracy, percent, of n answers to each question. `pass@1` takes one at random, `pass@n` is an oracle that finds "
    "a right one where there is one. `majority`, `weighted vote` and `best of n` choose one answer: by count, by the "
    "sum of the verifier's probabilities, by the highest of them. Intervals are 95 %, a patient's questions going "
    "together. `gap`: share of the way from pass@1 to pass@n, with Fieller's interval, and a dash where the oracle may "
    "gain nothing. The last column is best of n minus majority on the same questions, in points. `mean` counts every "
    "specialty once, with Zou and Donner's interval.\n"
)
SELECTIVE_TOLD = (
    "Each question is answered by the best of n, the surest first, and the others are left unanswered. AURC is the "
    "mean share of wrong answers over all coverages: lower is better; beside it what sureness without knowledge and "
    "a perfect one would give.\n"
)


def page(found: Sequence[Line]) -> str:
    """The page of Markdown."""
    head = ["model", "specialty", "questions", "n", "pass@1", "pass@n"]
    head += [column for name in CHOICES for column in (name, "gap")] + ["best of n - majority"]
    rows = []
    for one in found:
        row = [one.model, one.specialty, str(one.n), str(one.k)]
        row += [f"{100 * one.at_k[size][0]:.1f}" for size in (1, one.k)]
        for name in CHOICES:
            share = one.gap[name]
            row += [percent(*one.chosen[name]), f"{percent(*share.interval)}" if share.bounded else "-"]
        rows.append([*row, percent(*one.difference, "+")])
    rows += [mean_row(model, lines) for model, lines in together(found).items()]
    by_k = [
        [one.model, one.specialty, str(size), *(f"{100 * value:.1f}" for value in values)]
        for one in found
        for size, values in one.at_k.items()
    ]
    sure = [
        [
            *(one.model, one.specialty),
            *(f"{100 * one.curve.accuracy_at(share):.1f}" for share in COVERAGES),
            f"{100 * one.curve.coverage_at(0.9):.0f}",
            *(f"{value:.3f}" for value in (one.curve.area, one.curve.area_at_random, one.curve.area_oracle)),
        ]
        for one in found
    ]
    at = [f"right at {100 * share:.0f} % answered" for share in COVERAGES]
    return "\n".join(
        [
            "# A verifier among several answers\n",
            markdown(head, rows) + "\n",
            TOLD,
            "## k answers of these, drawn without replacement, percent\n",
            markdown(["model", "specialty", "k", "pass@k", "maj@k", "best of k"], by_k) + "\n",
            "## Answering only where it is sure, percent\n",
            markdown(
                ["model", "specialty", *at, "answered at 90 % right", "AURC", "without knowledge", "perfect"], sure
            )
            + "\n",
            SELECTIVE_TOLD,
        ]
    )


def together(found: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines of which a mean over specialties says something, by its name: a model's, or each specialty's own."""
    own = len({one.specialty for one in found}) == len(found)
    groups: dict[str, list[Line]] = {}
    for one in found:
        groups.setdefault("each its own" if own else one.model, []).append(one)
    return {name: lines for name, lines in groups.items() if len(lines) > 1}


def mean_row(name: str, lines: Sequence[Line]) -> list[str]:
    """Means over specialties, each counting once."""
    row = [name, "mean", str(sum(one.n for one in lines)), " ".join(dict.fromkeys(str(one.k) for one in lines))]
    for passed in ([one.at_k[1][0] for one in lines], [one.at_k[one.k][0] for one in lines]):
        row.append(f"{100 * mean(passed):.1f}")
    for choice in CHOICES:
        row += [percent(*mean_of([one.chosen[choice] for one in lines])), "-"]
    return [*row, percent(*mean_of([one.difference for one in lines]), "+")]


def mean_of(found: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The mean of estimates with their intervals: specialties have no patient in common."""
    return mean_interval([value for value, _, _ in found], [(low, high) for _, low, high in found])


def as_csv(found: Sequence[Line]) -> str:
    """Every number in full: accuracies by k, and the risk at every coverage."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "specialty", "what", "at", "value"])
    for one in found:
        for size, values in one.at_k.items():
            for name, value in zip(("pass", "maj", "best"), values, strict=True):
                writer.writerow([one.model, one.specialty, name, size, value])
        for coverage, risk in zip(one.curve.coverage, one.curve.risk, strict=True):
            writer.writerow([one.model, one.specialty, "risk", float(coverage), float(risk)])
    return out.getvalue()


def figure(found: Sequence[Line]) -> Figure:
    """Accuracy by k, and risk against coverage; one row of panels for each model and specialty, at most six."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = found[:6]
    drawn = Figure(figsize=(8, 2.8 * len(shown)), layout="constrained")
    FigureCanvasAgg(drawn)
    for (left, right), one in zip(drawn.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        for place, name in enumerate(("pass@k", "maj@k", "best of k")):
            left.plot(list(one.at_k), [100 * values[place] for values in one.at_k.values()], "o-", ms=3, label=name)
        left.set_xscale("log", base=2)
        left.set_xticks(list(one.at_k), [str(k) for k in one.at_k])
        left.set_xlabel("k, answers to a question", fontsize=7)
        left.set_title(f"{one.model} on {one.specialty}: right, percent, by k".replace("$", r"\$"), fontsize=8)
        left.legend(fontsize=7)
        right.plot(one.curve.coverage, one.curve.risk, color="tab:blue")
        right.axhline(one.curve.area_at_random, color="grey", linestyle=":", linewidth=0.8)
        right.set_ylim(0, None)
        right.set_xlabel("share answered, the surest first", fontsize=7)
        right.set_title("share of wrong answers", fontsize=8)
    return drawn

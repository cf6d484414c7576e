"""Who gains and who loses in a merge: norms, cosines, sign conflict against chance, and what each expert retains."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch

from merge.factors import TaskVector, gram, inner_product
from merge.truncation import RetainedEnergy

SAMPLED_ROWS = 64
"""Rows per matrix in which signs are compared; all of them where a matrix has no more."""
WEAK_RETENTION = 0.3
"""Below this share of an expert left in its own direction, the report warns."""
NORM_RATIO = 5.0
"""Experts whose norms differ by more than this factor are likely to be outvoted."""
LOW_ENERGY = 0.9
"""Below this share of the squared norm kept at the chosen rank, the report warns."""


def sign_conflict(a: TaskVector, b: TaskVector) -> dict[str, float | None]:
    """How often two experts pull an entry in opposite directions, and how often chance would have it.

    Two unrelated experts disagree in half of the entries, so the rate alone says little. For zero-mean Gaussian
    entries of correlation rho the chance level is arccos(rho) / pi; it is taken per matrix and averaged by size.

    Args:
        a: one expert.
        b: another, over the same modules.

    Returns:
        rate: share of entries, both non-zero, whose signs differ; None if there are none.
        chance: arccos(rho) / pi.
        excess: rate - chance.
        standard_error: of the rate, taking rows as the sampling unit; None where all rows were read.

    Source: the orthant probability of a bivariate normal, Sheppard 1899.
    Choice: evenly spaced rows instead of random ones: no generator, and the same answer every time.
    """
    rows_differ, rows_both, chance, entries, sampled = [], [], 0.0, 0.0, False
    for name in a:
        m, n = a[name].shape
        rows = torch.arange(min(m, SAMPLED_ROWS)) * m // min(m, SAMPLED_ROWS)
        sampled |= m > SAMPLED_ROWS
        signs = (a[name].B[rows] @ a[name].A).sign() * (b[name].B[rows] @ b[name].A).sign()  # (rows, n)
        norms = math.sqrt(inner_product(a[name], a[name]) * inner_product(b[name], b[name]))
        if norms == 0:
            continue
        rho = min(1.0, max(-1.0, inner_product(a[name], b[name]) / norms))
        # A sampled row stands for m / len(rows) rows of its matrix.
        scale = m / len(rows)
        rows_differ.append((signs < 0).sum(dim=1).double() * scale)
        rows_both.append((signs != 0).sum(dim=1).double() * scale)
        chance += math.acos(rho) / math.pi * m * n
        entries += m * n
    both = torch.cat(rows_both) if rows_both else torch.zeros(1, dtype=torch.float64)
    if both.sum() == 0:
        return {"rate": None, "chance": None, "excess": None, "standard_error": None}
    differ = torch.cat(rows_differ)
    rate = (differ.sum() / both.sum()).item()
    error = ((differ - rate * both).square().sum().sqrt() / both.sum()).item()
    level = chance / entries
    return {
        "rate": rate,
        "chance": level,
        "excess": rate - level,
        "standard_error": error if sampled else None,
    }


def conflict_report(
    vectors: Mapping[str, TaskVector], merged: TaskVector, energy: RetainedEnergy | None = None
) -> dict[str, Any]:
    """Compare the experts with each other and with what became of them.

    Args:
        vectors: expert name -> task vector D_i.
        merged: the task vector M that was written, after any cut in rank.
        energy: what the cut kept; None if there was none.

    Returns:
        experts: per name, norm |D_i| and retention <M, D_i> / <D_i, D_i> (1: as strong as alone; 0: gone; below 0:
            the agent moves against this expert; None for an expert that is zero).
        cosine: N x N, None where an expert is zero.
        sign_conflict: per pair "a | b", see `sign_conflict`.
        merged: norm |M|, its ratio to the largest expert's, ranks, energy retained in all and per module.
        verdict: "good" or "warn"; findings: sentences, worst first.

    Raises:
        ValueError: the task vectors do not cover the same modules.
    """
    names = sorted(vectors)
    G = gram([vectors[name] for name in names] + [merged])  # (N + 1, N + 1)
    norms = G.diagonal().clamp_min(0).sqrt().tolist()
    experts = {
        name: {"norm": norms[i], "retention": (G[i, -1] / G[i, i]).item() if norms[i] > 0 else None}
        for i, name in enumerate(names)
    }
    cosine = [
        [(G[i, j].item() / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else None) for j in range(len(names))]
        for i in range(len(names))
    ]
    signs = {f"{a} | {b}": sign_conflict(vectors[a], vectors[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    largest = max(norms[:-1])
    report = {
        "experts": experts,
        "cosine": {"names": names, "matrix": cosine},
        "sign_conflict": signs,
        "merged": {
            "norm": norms[-1],
            "norm_over_largest_expert": norms[-1] / largest if largest > 0 else None,
            "rank": {"min": min(f.rank for f in merged.values()), "max": max(f.rank for f in merged.values())},
            "retained_energy": energy.total if energy else 1.0,
            "retained_energy_per_module": energy.per_module if energy else {},
        },
    }
    report["findings"] = findings(report)
    report["verdict"] = "warn" if report["findings"] else "good"
    return report


def findings(report: Mapping[str, Any]) -> list[str]:
    """What a reader should worry about, in words, worst first; empty if nothing."""
    experts, merged, found = report["experts"], report["merged"], []
    known = {name: e["retention"] for name, e in experts.items() if e["retention"] is not None}
    found += [f"{name} is zero: it was never trained, or never rewarded" for name in experts if name not in known]
    for name, retention in sorted(known.items(), key=lambda item: item[1]):
        if retention <= 0:
            found.append(
                f"{name} is lost: retention {retention:.2f}, the merged agent moves against it. A small expert among "
                "large ones is outvoted; raise its weight, or use task arithmetic"
            )
        elif retention < WEAK_RETENTION:
            found.append(f"{name} is weak: retention {retention:.2f}, below {WEAK_RETENTION}")
    sizes = sorted((e["norm"], name) for name, e in experts.items() if e["norm"] > 0)
    if sizes and sizes[-1][0] > NORM_RATIO * sizes[0][0]:
        (small, weak), (large, strong) = sizes[0], sizes[-1]
        found.append(f"norms are uneven: {strong} ({large:.3g}) is {large / small:.1f} times {weak} ({small:.3g})")
    if merged["retained_energy"] < LOW_ENERGY:
        found.append(
            f"the rank is too small: {merged['retained_energy']:.1%} of the merged update is kept "
            f"(below {LOW_ENERGY:.0%}); choose a larger rank, or a method that stays low-rank"
        )
    ratio = merged["norm_over_largest_expert"]
    if ratio is not None and not 0.1 <= ratio <= 3:
        found.append(f"the merged update has {ratio:.2f} times the norm of the largest expert; expected 0.1 to 3")
    return found


def to_json(report: Mapping[str, Any]) -> str:
    """The report as strict JSON; the same report gives the same bytes."""
    return json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as tables, the verdict first."""

    def number(value: float | None, form: str = ".3f") -> str:
        return "-" if value is None else format(value, form)

    merged, names = report["merged"], report["cosine"]["names"]
    lines = ["# Conflict report", "", f"Verdict: **{report['verdict']}**", ""]
    lines += [f"- {sentence}" for sentence in report["findings"]] or ["No expert is lost, and none is weak."]
    lines += ["", "| expert | norm | retention |", "|---|---|---|"]
    lines += [f"| {n} | {e['norm']:.4g} | {number(e['retention'])} |" for n, e in report["experts"].items()]
    lines += ["", "Retention is <M, D> / <D, D>: 1 as strong as alone, 0 gone, below 0 reversed.", ""]
    lines += ["| cosine | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in zip(names, report["cosine"]["matrix"], strict=True):
        lines.append(f"| {name} | " + " | ".join(number(value) for value in row) + " |")
    if report["sign_conflict"]:
        lines += ["", "| pair | sign conflict | chance | excess |", "|---|---|---|---|"]
        for pair, s in report["sign_conflict"].items():
            cells = " | ".join(number(s[key]) for key in ("rate", "chance", "excess"))
            lines.append(f"| {pair.replace(' | ', ' and ')} | {cells} |")
        lines += ["", "Unrelated experts disagree in half of the signs; only the excess is conflict."]
    lines += [
        "",
        f"Merged: norm {merged['norm']:.4g}, rank {merged['rank']['min']} to {merged['rank']['max']}, "
        f"energy retained at that rank {merged['retained_energy']:.4f}.",
    ]
    return "\n".join(lines) + "\n"

"""The conflict report of a merge: figures of the whole model and of every module, and a verdict in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from merge.conflict import Signs, cosines, signs_of

WEAK_RETENTION = 0.3
"""Below this share of an expert left in its own direction, the report warns."""
NORM_RATIO = 5.0
"""Experts whose norms differ by more than this factor are likely to be outvoted."""
LOW_ENERGY = 0.9
"""Below this share of the squared norm kept at the chosen rank, the report warns."""
LOWEST_SIZE, HIGHEST_SIZE = 0.1, 3.0
"""Norm of the merged update over the largest expert's that is expected; beyond thrice or a third of it, no agent."""
EXCESS = 0.02
"""Sign conflict this far above chance is called conflict."""


def ratio(part: float, whole: float, if_zero: float | None = None) -> float | None:
    """A quotient, or what stands for it where the divisor is 0."""
    return part / whole if whole > 0 else if_zero


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def figures(names: Sequence[str], modules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures over some modules, from their sums; one module alone gives that module's figures.

    Args:
        names: K experts.
        modules: what `between_experts` and `with_merged` of `merge.conflict` found, with `energy` (kept, whole),
            `rank` and `survival`.

    Returns:
        experts: per name, norm |D_i|, retention <M, D_i> / <D_i, D_i> (1: as strong as alone; 0: gone; below 0: the
            agent moves against this expert), interference (0: undisturbed on its own inputs), survival (share of
            entries that the method kept); None where the expert is zero or the method drops nothing.
        cosine, overlap_inputs, overlap_outputs: K x K; overlaps are means over modules.
        sign_conflict: per pair, see `merge.conflict.Signs.summary`.
        mass_conflict: 1 - |sum| / sum of |.|: the share of mass that cancels.
        merged: norm, its ratio to the largest expert's, ranks, energy retained at that rank.
    """
    G = torch.tensor([module["gram"] for module in modules], dtype=torch.float64).sum(0)
    norms = G.diagonal().clamp_min(0).sqrt().tolist()
    K = range(len(names))
    disturbed = [[math.fsum(m["interference"][i][part] for m in modules) for part in (0, 1)] for i in K]
    experts = {
        name: {
            "norm": norms[i],
            "retention": ratio(G[i, -1].item(), G[i, i].item()),
            "interference": math.sqrt(ratio(*disturbed[i])) if disturbed[i][1] > 0 else None,
            "survival": survival(modules, i),
        }
        for i, name in enumerate(names)
    }
    pairs = {
        pair: sum((signs_of(m["signs"][pair]) for m in modules), Signs()).summary() for pair in modules[0]["signs"]
    }
    net, gross = (math.fsum(m["mass"][part] for m in modules) for part in (0, 1))
    kept, whole = (math.fsum(m["energy"][part] for m in modules) for part in (0, 1))
    return {
        "experts": experts,
        "cosine": [row[:-1] for row in cosines(G)[:-1]],
        **{
            f"overlap_{side}": [[mean([m["overlap"][side][i][j] for m in modules]) for j in K] for i in K]
            for side in ("inputs", "outputs")
        },
        "sign_conflict": pairs,
        "mass_conflict": None if gross == 0 else 1 - net / gross,
        "merged": {
            "norm": norms[-1],
            "norm_over_largest_expert": ratio(norms[-1], max(norms[:-1])),
            "rank": {"min": min(m["rank"] for m in modules), "max": max(m["rank"] for m in modules)},
            "retained_energy": ratio(kept, whole, 1.0),
        },
    }


def survival(modules: Sequence[Mapping[str, Any]], expert: int) -> float | None:
    """Share of an expert's entries that the method kept, over modules; None for a method that drops none."""
    dropped = [m for m in modules if m["survival"]]
    kept = math.fsum(m["survival"][expert] * m["entries"] for m in dropped)
    return ratio(kept, sum(m["entries"] for m in dropped))


def conflict_report(names: Sequence[str], modules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the experts with each other and with what became of them.

    Args:
        names: K experts.
        modules: name -> see `figures`.

    Returns:
        `names`, the `figures` of the whole model, `modules` (the figures of each), `findings` (sentences, worst
        first) and `verdict`: "good", or "warn" where something was found.
    """
    report = {"names": list(names)} | figures(names, list(modules.values()))
    report["modules"] = {module: of_module(figures(names, [found])) for module, found in modules.items()}
    report["findings"] = findings(report)
    report["verdict"] = "warn" if report["findings"] else "good"
    return report


def of_module(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of one module's figures: sign conflict as means over the pairs."""
    pairs = found["sign_conflict"].values()
    return {
        "norm": {name: expert["norm"] for name, expert in found["experts"].items()},
        "retention": {name: expert["retention"] for name, expert in found["experts"].items()},
        "interference": {name: expert["interference"] for name, expert in found["experts"].items()},
        "survival": {name: expert["survival"] for name, expert in found["experts"].items()},
        "sign_conflict": mean([pair["rate"] for pair in pairs]),
        "sign_conflict_excess": mean([pair["excess"] for pair in pairs]),
        "mass_conflict": found["mass_conflict"],
        "norm_over_largest_expert": found["merged"]["norm_over_largest_expert"],
        "rank": found["merged"]["rank"]["max"],
        "retained_energy": found["merged"]["retained_energy"],
    }


def findings(report: Mapping[str, Any]) -> list[str]:
    """What a reader should worry about, in words, worst first; empty if nothing."""
    experts, merged, found = report["experts"], report["merged"], []
    known = {name: e["retention"] for name, e in experts.items() if e["retention"] is not None}
    found += [f"{name} is zero: it was never trained, or never rewarded" for name in experts if name not in known]
    for name, retention in sorted(known.items(), key=lambda item: item[1]):
        if retention <= 0:
            found.append(
                f"{name} is lost: retention {retention:.2f}, the merged agent moves against it. A small expert among "
                "large ones is outvoted; elect at unit norm with the disjoint sum, raise its weight, or add by weights "
                "(task_arithmetic). Whether the agent answers better then, only questions tell"
            )
        elif retention < WEAK_RETENTION:
            found.append(f"{name} is weak: retention {retention:.3f}, below {WEAK_RETENTION}")
    sizes = sorted((e["norm"], name) for name, e in experts.items() if e["norm"] > 0)
    if sizes and sizes[-1][0] > NORM_RATIO * sizes[0][0]:
        (small, weak), (large, strong) = sizes[0], sizes[-1]
        found.append(f"norms are uneven: {strong} ({large:.3g}) is {large / small:.1f} times {weak} ({small:.3g})")
    if merged["retained_energy"] < LOW_ENERGY:
        found.append(
            f"the rank is too small: {merged['retained_energy']:.1%} of the merged update is kept "
            f"(below {LOW_ENERGY:.0%}); choose a larger rank, or a method that stays low-rank"
        )
    size = merged["norm_over_largest_expert"]
    if size is not None and not LOWEST_SIZE <= size <= HIGHEST_SIZE:
        found.append(
            f"the merged update has {size:.2f} times the norm of the largest expert; "
            f"expected {LOWEST_SIZE} to {HIGHEST_SIZE}"
        )
    fights = {pair: s["excess"] for pair, s in report["sign_conflict"].items() if (s["excess"] or 0) > EXCESS}
    for pair, excess in sorted(fights.items(), key=lambda item: -item[1])[:3]:
        a, b = pair.split(" | ")
        found.append(f"{a} and {b} disagree in more signs than chance: excess {excess:.3f}")
    return found


def to_json(report: Mapping[str, Any]) -> str:
    """The report as strict JSON; the same report gives the same bytes."""
    return json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def number(value: float | None, form: str = ".3f") -> str:
    """A figure for a table."""
    return "-" if value is None else format(value, form)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as tables, the verdict first."""
    names, merged = report["names"], report["merged"]
    lines = ["# Conflict report", "", f"Verdict: **{report['verdict']}**", ""]
    lines += [f"- {sentence}" for sentence in report["findings"]] or ["No expert is lost, and none is weak."]
    if "gates" in report:
        lines += ["", f"Gates: **{report['gates']['verdict']}**", ""]
        lines += [f"- {gate['verdict']}: {gate['text']}" for gate in report["gates"]["gates"]] or ["All passed."]
    lines += ["", "## Experts", ""]
    keys = ("norm", "retention", "interference", "survival")
    experts = [(name, report["experts"][name]) for name in names]
    rows = [[name, *(number(e[key], ".4g" if key == "norm" else ".3f") for key in keys)] for name, e in experts]
    lines += table(["expert", *keys], rows)
    lines += [
        "Retention is <M, D> / <D, D>: 1 as strong as alone, 0 gone, below 0 reversed. Interference is",
        "|(M - D) D^T| / |D D^T|: 0 undisturbed on the inputs that the expert's own update reads. Survival is the",
        "share of entries that the method kept.",
        "",
    ]
    for key, title in (
        ("cosine", "Cosine"),
        ("overlap_inputs", "Overlap of what is read (1: the same inputs)"),
        ("overlap_outputs", "Overlap of what is written (1: the same outputs)"),
    ):
        rows = [[n, *map(number, row)] for n, row in zip(names, report[key], strict=True)]
        lines += [f"## {title}", "", *table(["", *names], rows)]
    if report["sign_conflict"]:
        keys = ("rate", "chance", "excess", "standard_error")
        rows = [
            [pair.replace(" | ", " and "), *(number(s[key]) for key in keys)]
            for pair, s in report["sign_conflict"].items()
        ]
        lines += ["## Signs", "", *table(["pair", "conflict", "chance", "excess", "standard error"], rows)]
        lines += ["Unrelated experts disagree in half of the signs; only the excess is conflict.", ""]
    lines += [
        f"Merged: norm {merged['norm']:.4g}, {number(merged['norm_over_largest_expert'], '.2f')} times the largest "
        f"expert's; rank {merged['rank']['min']} to {merged['rank']['max']}, energy retained at that rank "
        f"{merged['retained_energy']:.4f}. Share of mass that cancels: {number(report['mass_conflict'])}.",
        "",
        "## Modules",
        "",
    ]
    keys = ("sign_conflict", "sign_conflict_excess", "mass_conflict", "norm_over_largest_expert", "retained_energy")
    rows = [
        [module, *(number(f[key]) for key in keys), number(min(known(f["retention"]), default=None))]
        for module, f in report["modules"].items()
    ]
    head = ["module", "sign conflict", "excess", "mass conflict", "norm / largest", "energy", "lowest retention"]
    return "\n".join(lines + table(head, rows)).rstrip() + "\n"


def known(values: Mapping[str, float | None]) -> list[float]:
    """Those that are there."""
    return [value for value in values.values() if value is not None]

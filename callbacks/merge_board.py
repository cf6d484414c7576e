"""A merge on TensorBoard: heat maps over layers and projections, matrices between experts, scalars per expert."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbacks.board_files import board, board_stands
from callbacks.heat_maps import grids, lines, panels
from merge.report import to_json
from merge.run import REJECTED

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LAYER = re.compile(r"(?P<before>.*?)\.(?P<layer>\d+)\.(?P<projection>.+)")
"""A module's name: where its stack of layers stands, the layer's number, the projection."""

HEAT_MAPS = {
    "sign_conflict": "sign conflict, mean over pairs",
    "sign_conflict_excess": "the same above chance",
    "mass_conflict": "share of mass that cancels",
    "norm_over_largest_expert": "norm, over the largest expert's",
    "retained_energy": "energy kept at the rank written",
}
MATRICES = {"cosine": "cosine", "overlap_inputs": "overlap of inputs", "overlap_outputs": "overlap of outputs"}
PER_EXPERT = ("norm", "retention", "interference", "survival")


def write_board(folder: Path, report: Mapping[str, Any], *, pictures: bool = True) -> bool:
    """Write a report's figures and scalars as one event file, unless they stand there; an earlier merge's make room.

    Args:
        folder: of the merged agent.
        report: see `merge.report.conflict_report`.
        pictures: whether maps are drawn, or numbers and the verdict written alone.

    Returns:
        Whether it did not stand there.

    Raises:
        DamagedError: the board that stands there is not as it was written.
    """
    made_from = hashlib.sha256(f"{pictures} {to_json(report)}".encode()).hexdigest()
    if board_stands(folder, made_from):
        return False
    with board(folder, made_from) as writer:
        for key in PER_EXPERT:
            for name in report["names"]:
                if (value := report["experts"][name][key]) is not None:
                    writer.add_scalar(f"weights/{key}/{name}", value, 0)
        writer.add_scalar("weights/retained_energy", report["merged"]["retained_energy"], 0)
        if pictures:
            draw(writer, report)
        writer.add_text("weights/verdict", verdict(report, rejected=folder.name == REJECTED), 0)
    return True


def draw(writer: SummaryWriter, report: Mapping[str, Any]) -> None:
    """Add how experts lie to each other, where they conflict, and what became of each.

    Args:
        writer: of the board.
        report: as of `write_board`.
    """
    names = report["names"]
    writer.add_figure(
        "weights/experts",
        grids({title: report[key] for key, title in MATRICES.items()}, names, names, "how experts lie to each other"),
    )
    layers, projections = places(report["modules"])

    def rows(values: Mapping[str, float | None]) -> list[list[float | None]]:
        return [[values.get(layers[layer].get(name, "")) for name in projections] for layer in layers]

    conflict = {
        title: rows({name: found[key] for name, found in report["modules"].items()}) for key, title in HEAT_MAPS.items()
    }
    writer.add_figure("weights/modules/conflict", grids(conflict, list(layers), projections, "by layer and projection"))
    per_expert = {}
    for key in PER_EXPERT:
        of = {n: {m: found[key][n] for m, found in report["modules"].items()} for n in names}
        of = {name: values for name, values in of.items() if any(v is not None for v in values.values())}
        if of:
            per_expert[key] = of
            maps = {name: rows(values) for name, values in of.items()}
            title = f"{key} by layer, projection and expert"
            writer.add_figure(f"weights/modules/{key}", panels(maps, list(layers), projections, title))
    writer.add_figure("weights/layers", lines(per_expert, layers))


def verdict(report: Mapping[str, Any], *, rejected: bool) -> str:
    """Markdown: whether the merge became the result, what the gates say of it, and what the report found."""
    gates = report["gates"]
    lines = ["**rejected**: kept apart, never the result", ""] if rejected else []
    lines += [f"gates: **{gates['verdict']}**", ""]
    lines += [f"- {gate['verdict']}: {gate['text']}" for gate in gates["gates"]] or ["- all passed"]
    lines += ["", f"report: **{report['verdict']}**", ""]
    return "\n".join(lines + ([f"- {finding}" for finding in report["findings"]] or ["- no findings"]))


def places(modules: Sequence[str] | Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Layer -> projection -> module, in the order of the layers' numbers; and all projections."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for module in modules:
        match = LAYER.fullmatch(module)
        place = (match["before"], int(match["layer"])) if match else ("", -1)
        found.setdefault(place, {})[match["projection"] if match else module] = module
    stacks = {before for before, _ in found}
    layers = {
        (str(layer) if len(stacks) == 1 else f"{before}.{layer}" if before else "other"): found[before, layer]
        for before, layer in sorted(found)
    }
    return layers, sorted({projection for row in found.values() for projection in row})

"""An evaluation on TensorBoard: the matrix as a figure, every cell, vote and variant as a scalar."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from callbacks.board_files import board, board_stands
from callbacks.heat_maps import grids
from evaluation.ablations import ablation, consistency
from evaluation.baselines import Line
from evaluation.kept import Kept
from evaluation.matrix_table import matrix_figure
from evaluation.predictions import Prediction, by_variant
from evaluation.scoring import Row, columns_of
from evaluation.several import several
from evaluation.tables import parts_of

REACH = 5.0
"""Points to either side of 0 that the scale of differences shows at least; noise is not to look like an effect."""


def write_board(
    folder: Path,
    table: Sequence[Row],
    predictions: Sequence[Prediction],
    below: Sequence[Line] = (),
    kept: Mapping[str, Kept] | None = None,
) -> None:
    """Write the figures and scalars of an evaluation as one event file, unless they stand there.

    Args:
        folder: of the evaluation.
        table: the matrix.
        predictions: all of them, the main way first.
        below: lines below the matrix, as of `evaluation.baselines.lines_below`.
        kept: as of `evaluation.kept.kept_column`.

    Raises:
        DamagedError: the board that stands there is not as it was written.
    """
    kept = kept or {}
    drawn = [*(prediction.to_json() for prediction in predictions), *map(repr, below), *map(repr, kept.items())]
    made_from = hashlib.sha256("\n".join(drawn).encode()).hexdigest()
    if board_stands(folder, made_from):
        return
    with board(folder, made_from) as writer:
        writer.add_figure("evaluation/matrix", matrix_figure(table, below, kept))
        for row in table:
            for specialty, cell in row.cells.items():
                writer.add_scalar(f"test/accuracy/{specialty}/{row.model.replace('/', '.')}", cell.accuracy, 0)
        for model, one in kept.items():
            end = model.replace("/", ".")
            writer.add_scalar(f"test/kept/accuracy/{end}", one.score.accuracy, 0)
            if one.difference is not None:
                writer.add_scalar(f"test/kept/difference/{end}", one.difference.difference, 0)
        for tag, value in further_scalars(predictions).items():
            writer.add_scalar(tag, value, 0)
        changes = differences(predictions)
        for specialty in columns_of(table):
            found = {model: columns[specialty] for model, columns in changes.items() if specialty in columns}
            if found:
                labels = list(dict.fromkeys(label for values in found.values() for label in values))
                rows = [[values.get(label) for label in labels] for values in found.values()]
                figure = grids({specialty: rows}, list(found), labels, "difference to the main way, points", REACH)
                writer.add_figure(f"evaluation/variants/{specialty}", figure)


def further_scalars(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Tag -> value: votes, pass@k and maj@k of several completions; accuracy and agreement of variants."""
    ways = by_variant(predictions)
    parts = {label: parts_of(items) for label, items in ways.items()}
    found: dict[str, float] = {}
    for model, columns in parts[""].items():
        for specialty, items in columns.items():
            end = f"{specialty}/{model.replace('/', '.')}"
            together = several(items)
            if together.completions > 1:
                found[f"test/vote/{end}"] = together.vote
                found |= {f"test/pass_at_{k}/{end}": value for k, value in together.pass_at.items()}
                found |= {f"test/maj_at_{k}/{end}": value for k, value in together.maj_at.items()}
            others = {label: held[model].get(specialty) for label, held in parts.items() if label}
            for label, other in others.items():
                if other:
                    pair = ablation(items, other)
                    found[f"test/{label.replace('=', '_')}/accuracy/{end}"] = pair.accuracy
                    found[f"test/{label.replace('=', '_')}/same_answer/{end}"] = pair.same
            orders = [other or [] for label, other in others.items() if label.startswith("shuffle=")]
            circular = consistency(items, orders)
            if orders and circular.n:
                found[f"test/circular_accuracy/{end}"] = circular.always
    return found


def differences(predictions: Sequence[Prediction]) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """Model -> specialty -> variant -> accuracy minus that of the main way, in points."""
    main, *others = by_variant(predictions).items()
    parts = parts_of(main[1])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for label, items in others:
        for model, columns in parts_of(items).items():
            for specialty, answers in columns.items():
                value = 100 * ablation(parts[model][specialty], answers).difference
                found.setdefault(model, {}).setdefault(specialty, {})[label] = value
    return found

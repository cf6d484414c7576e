"""TensorBoard's HParams table of a matrix: a row per model, its test accuracies, and the settings that differ."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard.summary import hparams

from callbacks.board_files import board, board_stands
from evaluation.scoring import Row, columns_of

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

FOLDER = "models"
"""Below an evaluation: a folder per model, as the table takes each of its rows from a run of its own."""
ALWAYS = ("experiment", "specialty", "merge", "seed")
"""Shown whether they differ or not: boards of several experiments are looked at together."""
TOLD = ("module", "data", "fit", "trainer", "precision", "train", "replay", "seed")
"""Sections of the settings that decide what a run becomes."""
LONGEST = 100
"""Characters of a folder's name."""
Settings = Mapping[str, Mapping[str, Any]]
"""Model -> dotted key -> a number or a text."""


def write_table(folder: Path, table: Sequence[Row], settings: Settings) -> None:
    """Write the table, unless it stands there; rows of models that are not in the matrix any more are removed.

    Args:
        folder: of the evaluation.
        table: the matrix.
        settings: of its models, as of `settings_of`.

    Raises:
        DamagedError: a row that stands there is not as it was written.
    """
    places = {row.model: folder / FOLDER / folder_name(row.model) for row in table}
    for old in set((folder / FOLDER).glob("*/")) - set(places.values()):
        shutil.rmtree(old)
    for row in table:
        values = {f"test/accuracy/{name}": cell.accuracy for name, cell in row.cells.items()}
        values |= {} if row.macro is None else {"test/accuracy/macro": row.macro}
        told = [dict(settings[row.model]), values, columns_of(table)]
        made_from = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        if board_stands(places[row.model], made_from):
            continue
        _, *session = hparams(dict(settings[row.model]), {})
        with board(places[row.model], made_from) as writer:
            # Without the list of columns, of which the board takes the first row's for all: it finds them in the rows.
            for summary in session:
                writer.file_writer.add_summary(summary)
            for tag, value in values.items():
                writer.add_scalar(tag, value, 0)


def folder_name(model: str) -> str:
    """A model's name as a folder's; a long one is cut, and told apart by a hash."""
    name = model.replace("/", ".")
    return name if len(name) <= LONGEST else f"{name[:60]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def settings_of(experiment: ExperimentContext, models: Sequence[str]) -> Settings:
    """The settings that tell models of a matrix apart; of those that this lineage did not make, their names.

    Args:
        experiment: whose matrix it is.
        models: its rows.
    """
    members = {member.experiment.name: member for member in experiment.lineage}
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        name, _, rest = model.partition("/")
        kind, _, detail = rest.partition("/")
        found[model] = {"experiment": name} | ({"merge" if kind == "merged" else kind: detail} if detail else {})
        if rest and not detail and name in members:
            resolved = members[name].resolved
            found[model] |= {"specialty": rest} | flat({key: resolved[key] for key in TOLD if key in resolved})
    return {model: {key: one[key] for key in one if telling(key, found.values())} for model, one in found.items()}


def telling(key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows that have a setting differ in it, or it is shown always."""
    return key in ALWAYS or len({repr(row[key]) for row in rows if key in row}) > 1


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys; lists become text, and so do infinite numbers, which a browser cannot read.

    Examples:
        >>> flat({"module": {"rate": 0.1, "terms": ["a"], "tau": math.inf}})
        {'module.rate': 0.1, 'module.terms': "['a']", 'module.tau': 'inf'}
    """
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    plain = isinstance(tree, str | bool) or (isinstance(tree, int | float) and math.isfinite(tree))
    return {prefix[:-1]: tree if plain else str(tree)}

"""The cells of a matrix: who is asked which questions in which way, and where the answers lie.

One cell (model, specialty, way of asking, guideline) is one file, named by a hash of all that its numbers depend on:
adapters, base, questions and protocol. A cell that exists is not computed again, whichever experiment under the same
`runs_dir` made it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from answering.decoding import Decoding
from answering.examination import Cell, Examination, read_cell
from answering.protocols import TEXTS
from artifacts.adapter_files import acting_sha256
from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.hashes import data_sha256, prompt_sha256
from datamodules.prompts import VERSION, WORDINGS
from evaluation import answers
from evaluation.kept import KEPT
from evaluation.predictions import Prediction
from evaluation.variants import Variant, asked, variants
from lightning_modules.rewards.guidelines import load_guidelines

if TYPE_CHECKING:
    from callbacks.evaluate_experts import EvaluateExperts
    from experiment.context import ExperimentContext

DEFAULT_TOKENS = 96


class MatrixCells:
    """Every cell of an experiment's matrix."""

    def __init__(self, config: EvaluateExperts.Config, experiment: ExperimentContext) -> None:
        """Read the guidelines.

        Args:
            config: how questions are asked.
            experiment: knows models and data.

        Raises:
            ValueError: a guideline is unknown, or a specialty has the name of a column beside the specialties.
        """
        self.config, self.experiment = config, experiment
        if config.kept is not None and KEPT in experiment.specialties:
            raise ValueError(f"{KEPT!r} is the column of the base's own questions; call the specialty otherwise")
        c = config
        self.guidelines = {g.name: g.instruction for g in load_guidelines(c.guidelines).values()}
        self.texts = TEXTS[c.protocol]
        self.variants = variants(c.image, c.shuffle_options, c.paraphrase)
        self.data_sha256 = cache(lambda specialty: data_sha256(self.data(specialty), c.split))
        self.asked = cache(self._asked)
        self.prompts = cache(self._prompts)

    @property
    def specialties(self) -> list[str]:
        """The columns: all specialties, or where nothing is trained those of `only`."""
        only = self.experiment.experiment.only if self.experiment.provides == "nothing" else ()
        return list(only) or self.experiment.specialties

    def cells(self) -> list[Cell]:
        """Every cell in the order of the file of predictions, the main way of all models first; what is kept last."""
        models, main = self.experiment.examined, self.variants[0]
        found = [
            self.cell(model, tuple(adapters), specialty, variant, guideline)
            for variant in self.variants
            for model, adapters in models.items()
            for specialty in sorted(self.specialties)
            for guideline in self.guidelines
            if variant == main or self.asked(specialty, variant)
        ]
        if self.config.kept is not None:
            first = next(iter(self.guidelines))
            found += [self.cell(model, tuple(adapters), KEPT, main, first) for model, adapters in models.items()]
        return found

    def data(self, column: str) -> VQADataModule:
        """The set of a specialty, or the one of the base's own questions."""
        kept = self.config.kept
        return (
            self.experiment.data(column) if kept is None or column != KEPT else self.experiment.further_data(kept, KEPT)
        )

    def questions(self, cell: Cell) -> Sequence[Example]:
        """The questions of a cell as they are put."""
        return self.asked(cell.specialty, cell.variant)

    def chosen(self, specialty: str) -> Sequence[Example]:
        """The questions of a specialty that are asked, as the set has them.

        Raises:
            ValueError: a question without options would be asked by a protocol that needs them.
        """
        held = self.data(specialty).splits[self.config.split]
        n = self.config.n_kept if self.config.kept is not None and specialty == KEPT else self.config.n
        found = held[:n] if n else held
        if self.texts and (free := [example.question_id for example in found if not example.options]):
            raise ValueError(
                f"protocol={self.config.protocol} needs options to choose from, and {len(free)} of {len(found)} "
                f"questions of {specialty!r} have none, such as {free[0]!r}; choose closed questions, such as by "
                "data.questions=yes_no where the set has that key, or protocol=single"
            )
        return found

    def _asked(self, specialty: str, variant: Variant) -> Sequence[Example]:
        held = self.data(specialty).splits[self.config.split]
        return tuple(asked(self.chosen(specialty), variant, self.variants[0], held))

    def _prompts(self, specialty: str, guideline: str) -> Mapping[str, str]:
        instruction = "\n".join(self.texts) or self.guidelines[guideline]
        return {example.question_id: prompt_sha256(example, instruction) for example in self.chosen(specialty)}

    def cell(self, model: str, adapters: tuple[Path, ...], specialty: str, variant: Variant, guideline: str) -> Cell:
        """A cell and its file: the same cell of any experiment under `runs_dir`, else a new one of this experiment."""
        parts = [
            self.experiment.base_key,
            *map(acting_sha256, adapters),
            self.data_sha256(specialty),
            str(len(self.asked(specialty, variant))),
            str(self.new_tokens),
            VERSION,
        ]
        if special := self.special(variant, guideline):
            parts.append(json.dumps(special, sort_keys=True))
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + ".jsonl"
        found = Path(self.experiment.experiment.runs_dir).glob(f"*/evaluation/cells/{name}")
        path = next(iter(sorted(found)), self.experiment.folder.evaluation / "cells" / name)
        return Cell(model, adapters, specialty, variant, guideline, self.protocol(variant), path)

    def protocol(self, variant: Variant) -> dict[str, str]:
        """What differs from the default protocol, for `Prediction.protocol`."""
        c = self.config
        given = {"temperature": f"{c.temperature:g}"} if c.temperature else {}
        given |= {"temperature": "the server's"} if self.leaves_temperature_out() else {}
        given |= {"max_new_tokens": str(c.max_new_tokens)} if self.new_tokens not in (0, DEFAULT_TOKENS) else {}
        given |= {"protocol": c.protocol} if self.texts else {}
        given |= {"answer_tokens": str(c.answer_tokens)} if c.protocol == "two_turn" else {}
        return given | variant.protocol

    def leaves_temperature_out(self) -> bool:
        """Whether a model behind an endpoint is not told how to draw its answers."""
        return bool(self.experiment.endpoint) and "temperature" in self.experiment.endpoint[0].config.body

    @property
    def new_tokens(self) -> int:
        """Limit of what is generated in the first turn; 0 where nothing is."""
        return 0 if self.config.protocol == "likelihood" else self.config.max_new_tokens

    def special(self, variant: Variant, guideline: str) -> dict[str, Any]:
        """All that answers depend on besides greedy decoding of the plain question under the neutral prompt."""
        c = self.config
        found: dict[str, Any] = dict(variant.protocol)
        if self.texts:
            found |= {"protocol": c.protocol, "texts": self.texts}
        if c.protocol == "two_turn":
            found["answer_tokens"] = c.answer_tokens
        if variant.wording:
            found["frame"] = WORDINGS[variant.wording - 1]
        if self.guidelines[guideline]:
            found |= {"guideline": guideline, "instruction": self.guidelines[guideline]}
        if c.temperature:
            found |= {"temperature": c.temperature, "samples": c.samples, "seed": self.experiment.experiment.seed}
        return found

    def stored(self, cell: Cell) -> list[Prediction]:
        """A cell's predictions with the hashes of what was asked, which follow from its name; errors of `read_cell`."""
        prompts = self.prompts(cell.specialty, cell.guideline)
        items = read_cell(cell, self.questions(cell), self.config.samples)
        return [replace(item, prompt_sha256=prompts[item.question_id], score_version=answers.VERSION) for item in items]

    def examination(self) -> Examination:
        """What asks in this process."""
        c = self.config
        shared = {name: getattr(c, name) for name in ("max_new_tokens", "temperature", "samples", "rows_at_once")}
        asked = {"protocol": c.protocol, "answer_tokens": c.answer_tokens, "seed": self.experiment.experiment.seed}
        decoding = Decoding(**shared, **asked)
        return Examination(self.experiment, self.questions, self.guidelines, decoding)

    def forget_pieces(self) -> None:
        """Remove what a kill left of cells that are complete."""
        for parts in (self.experiment.folder.evaluation / "cells").glob("*.parts"):
            if parts.with_suffix(".jsonl").exists():
                shutil.rmtree(parts)

"""The matrix: base, every expert and every merged agent, on every specialty's test questions.

One cell (model, specialty) is one file, named by a hash of all that its numbers depend on: adapters, base, questions
and protocol. A cell that exists is not computed again, whichever experiment under the same `runs_dir` made it.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.tensorboard import SummaryWriter
from typing_extensions import override

from callbacks.experiment_callback import ExperimentCallback
from datamodules.batch import Example
from datamodules.prompts import NEUTRAL, VERSION
from evaluation.scoring import Prediction, matrix, matrix_csv, matrix_figure, matrix_text, score
from experiment.folders import locked
from experiment.interrupts import deferred
from experiment.provenance import data_sha256
from lightning_modules.policy import Policy, Prompt
from lightning_modules.rollout import sample
from merge.adapter_files import adapter_sha256, read_adapter
from merge.durable import write_text

if TYPE_CHECKING:
    from experiment.context import ExperimentContext


@dataclass(frozen=True)
class Cell:
    """One model on one specialty, not yet computed.

    Attributes:
        model: row name.
        adapters: folders of the adapters that act together.
        specialty: column name.
        path: where its predictions go.
    """

    model: str
    adapters: tuple[Path, ...]
    specialty: str
    path: Path


class EvaluateExperts(ExperimentCallback):
    """Greedy answers to the neutral prompt, scored strictly; lenient accuracy and parse rate stand beside it."""

    @dataclass(frozen=True)
    class Config:
        """Protocol of the matrix."""

        n: int = 300
        """Test questions per specialty, the first in hash order; 0 takes all."""
        split: str = "test"
        """Which split is examined: test, or val while choosing settings."""
        max_new_tokens: int = 96
        """Limit of an answer in tokens."""
        rows_at_once: int = 150
        """Answers decoded together; changes no result beyond rounding."""

        def __post_init__(self) -> None:
            if self.n < 0 or self.max_new_tokens < 1 or self.rows_at_once < 1:
                raise ValueError("n must be at least 0, max_new_tokens and rows_at_once at least 1")
            if self.split not in ("test", "val"):
                raise ValueError(f"split must be 'test' or 'val', got {self.split!r}")

    @override
    def finish(self) -> None:
        folder = self.experiment.folder.evaluation
        with locked(folder, "the evaluation"):
            predictions = self.predictions()
            table = matrix(predictions)
            texts = {
                "predictions.jsonl": "".join(prediction.to_json() + "\n" for prediction in predictions),
                "scores.json": json.dumps(self.scores(predictions), indent=2) + "\n",
                "matrix.csv": matrix_csv(table),
            }
            if any(not (folder / n).exists() or (folder / n).read_text("utf-8") != text for n, text in texts.items()):
                with deferred():  # its writer has a thread of its own
                    self.to_tensorboard(folder, table)
                for name, text in texts.items():  # the matrix last: where it stands, the rest stands too
                    write_text(folder / name, text)
        print("\n" + matrix_text(table) + "\n", flush=True)

    def models(self) -> dict[str, list[Path]]:
        """Row name -> the adapter folders that act together; the bare base has none."""
        rows: dict[str, list[Path]] = {"base": []}
        for context in self.experiment.lineage:
            if context.stage_class.provides == "expert":
                for specialty in context.specialties:
                    rows[f"{context.experiment.name}/{specialty}"] = [
                        path for _, path in context.expert_chain(specialty)
                    ]
            for merged in sorted(context.folder.path.glob("merged/*/adapter")):
                rows[f"{context.experiment.name}/merged/{merged.parent.name}"] = [merged]
        return rows

    def predictions(self) -> list[Prediction]:
        """Every cell's predictions, computed or found."""
        found: list[Prediction] = []
        todo: list[Cell] = []
        for model, adapters in self.models().items():
            for specialty in self.experiment.specialties:
                path = self.cell_path(adapters, specialty)
                if path.exists():
                    found += self.read_cell(path, model)
                else:
                    todo.append(Cell(model, tuple(adapters), specialty, path))
        if todo:
            found += self.compute(todo)
        order = {model: i for i, model in enumerate(self.models())}
        return sorted(found, key=lambda p: (order[p.model], p.specialty, p.question_id))

    def questions(self, specialty: str) -> Sequence[Example]:
        """The test questions of a specialty."""
        held = self.experiment.data(specialty).splits[self.config.split]
        return held[: self.config.n] if self.config.n else held

    def cell_path(self, adapters: Sequence[Path], specialty: str) -> Path:
        """The file of a cell: the same cell of any experiment under `runs_dir`, else a new one of this experiment."""
        parts = [
            self.base_key(),
            *(adapter_sha256(path) for path in adapters),
            data_sha256(self.experiment.data(specialty), self.config.split),
            str(len(self.questions(specialty))),
            str(self.config.max_new_tokens),
            VERSION,
        ]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + ".jsonl"
        found = Path(self.experiment.experiment.runs_dir).glob(f"*/evaluation/cells/{name}")
        return next(iter(sorted(found)), self.experiment.folder.evaluation / "cells" / name)

    def base_key(self) -> str:
        """Identifies the base without loading it: the trained weights' manifest, and the model's settings."""
        base = self.experiment.base_folder
        manifest = (base / "manifest.json").read_text() if base else ""
        return hashlib.sha256(
            (manifest + json.dumps(self.experiment.resolved["model"], sort_keys=True)).encode()
        ).hexdigest()

    @staticmethod
    def read_cell(cell: Path, model: str) -> list[Prediction]:
        """Predictions of a stored cell, under the row's name in this experiment."""
        lines = cell.read_text("utf-8").split("\n")[:-1]  # splitlines() would cut at U+2028 too
        return [replace(Prediction.from_json(line, str(cell)), model=model) for line in lines]

    def compute(self, todo: Sequence[Cell]) -> list[Prediction]:
        """Answer the questions of missing cells, in worker processes if the experiment has several."""
        workers = min(self.experiment.experiment.workers, len(todo))
        if workers > 1:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                parts = [(self.config, self.experiment.without_data(), todo[i::workers]) for i in range(workers)]
                for finished in [pool.submit(compute_part, *part) for part in parts]:
                    finished.result()
        else:
            self.compute_here(todo)
        return [prediction for cell in todo for prediction in self.read_cell(cell.path, cell.model)]

    def compute_here(self, todo: Sequence[Cell]) -> None:
        """Answer the questions of missing cells; each cell is on disk as soon as it is done."""
        policy, fingerprint = self.experiment.policy()
        on_gpu = torch.cuda.is_available() and self.experiment.experiment.trainer.get("accelerator") != "cpu"
        policy.to("cuda" if on_gpu else "cpu")
        loaded: dict[Path, str] = {}
        prompts = {
            specialty: [policy.prompt(example, "") for example in self.questions(specialty)]
            for specialty in dict.fromkeys(cell.specialty for cell in todo)
        }
        begin = time.monotonic()
        for done, cell in enumerate(todo):
            for path in [path for path in loaded if path not in cell.adapters]:
                policy.remove_adapter(loaded.pop(path))
            for path in cell.adapters:
                if path not in loaded:
                    adapter = read_adapter(path, base_fingerprint=fingerprint)
                    loaded[path] = f"m{adapter_sha256(path)[:12]}"
                    policy.load_adapter(loaded[path], adapter.config, adapter.tensors)
            policy.activate([loaded[path] for path in cell.adapters])
            with policy.folded():
                predictions = self.answer(policy, cell, prompts[cell.specialty])
            write_text(cell.path, "".join(prediction.to_json() + "\n" for prediction in predictions))
            left = (time.monotonic() - begin) / (done + 1) * (len(todo) - done - 1)
            result = score(predictions)
            print(
                f"evaluated {cell.model} on {cell.specialty}: {100 * result.accuracy:.1f} % of {result.n}"
                f"  ({done + 1}/{len(todo)}, {left:.0f} s left)",
                flush=True,
            )

    def answer(self, policy: Policy, cell: Cell, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Greedy answers of the policy as it stands to one specialty's questions."""
        completions = sample(
            policy,
            prompts,
            max_new_tokens=self.config.max_new_tokens,
            temperature=0.0,
            rows_at_once=self.config.rows_at_once,
        )
        return [
            Prediction(
                model=cell.model,
                specialty=cell.specialty,
                question_id=example.question_id,
                patient_id=example.patient_id,
                guideline=NEUTRAL,
                options=example.options,
                answer_letter=example.letter,
                completion=completion.text,
                tags=dict(example.tags),
                n_tokens=len(completion.ids),
                truncated=completion.truncated,
            )
            for example, completion in zip(self.questions(cell.specialty), completions, strict=True)
        ]

    @staticmethod
    def scores(predictions: Sequence[Prediction]) -> dict:
        """Model -> specialty -> every figure of `evaluation.scoring.Score`."""
        cells: dict[str, dict[str, list[Prediction]]] = {}
        for prediction in predictions:
            cells.setdefault(prediction.model, {}).setdefault(prediction.specialty, []).append(prediction)
        return {
            model: {specialty: asdict(score(rows)) for specialty, rows in columns.items()}
            for model, columns in cells.items()
        }

    def to_tensorboard(self, folder: Path, table) -> None:
        """The matrix as a figure, and each cell as a scalar; an earlier matrix's events make room."""
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            writer.add_figure("evaluation/matrix", matrix_figure(table))
            for row in table:
                for specialty, cell in row.cells.items():
                    writer.add_scalar(f"test/accuracy/{specialty}/{row.model.replace('/', '.')}", cell.accuracy, 0)


def compute_part(config: EvaluateExperts.Config, experiment: ExperimentContext, todo: Sequence[Cell]) -> None:
    """What a worker process does: its share of the cells."""
    torch.set_num_threads(experiment.experiment.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    EvaluateExperts(config, experiment=experiment).compute_here(todo)

"""The matrix: base, every expert and every merged agent, on every specialty's test questions.

One cell (model, specialty, way of asking, guideline) is one file, named by a hash of all that its numbers depend on:
adapters, base, questions and protocol. A cell that exists is not computed again, whichever experiment under the same
`runs_dir` made it. docs/evaluation.md says what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from typing_extensions import override

from answering.decoding import Decoding, ProtocolName
from answering.examination import Cell, Examination, read_cell
from answering.protocols import TEXTS
from artifacts.adapter_files import acting_sha256
from artifacts.durable import write_text
from artifacts.folders import locked
from artifacts.gpus import own_gpu, take_gpu
from artifacts.manifest import MANIFEST, entry_of, standing, write_manifest
from callbacks.evaluation_board import write_board
from callbacks.experiment_callback import ExperimentCallback
from callbacks.routers import Blocks, Route, RouterName, learned, oracle, routed
from datamodules.batch import Example
from datamodules.hashes import data_sha256, prompt_sha256
from datamodules.loading import Demand
from datamodules.prompts import NEUTRAL, VERSION, WORDINGS
from evaluation import answers
from evaluation.baselines import FILE as TRAINING_ANSWERS
from evaluation.baselines import answer_counts, lines_below
from evaluation.headroom import headroom, headroom_csv, headroom_text
from evaluation.predictions import Prediction, by_variant
from evaluation.routes import expert_rows
from evaluation.scorers import MAIN
from evaluation.scoring import matrix, matrix_csv, matrix_text, score
from evaluation.tables import parts_of, report, telling_tags
from evaluation.variants import MOST_ORDERS, ImageAblation, Variant, asked, variants
from guards.ranges import Ranged, at_least, between
from lightning_modules.parts import GuidelineNames
from lightning_modules.rewards.guidelines import load_guidelines

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

DEFAULT_TOKENS = 96
Official = Literal["official:medxpertqa", "official:omnimedvqa", "official:medevalkit"]


class EvaluateExperts(ExperimentCallback):
    """Raw answers, scored strictly; lenient accuracy, parse rate, votes and variants stand beside it."""

    is_shared = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """Protocol of the matrix; every key but `rows_at_once`, `scorers` and the routers' decides answers."""

        n: Annotated[int, at_least(0)] = 300
        """Test questions per specialty, the first in hash order; 0 takes all."""
        split: Literal["test", "val"] = "test"
        """Which split is examined: test, or val while choosing settings."""
        protocol: ProtocolName = "single"
        """How a question is asked. `single`: our prompt, one answer. `two_turn`: MedXpertQA's; reasoning first, then
        its letter. `likelihood`: OmniMedVQA's prefix-based score; each option is measured, nothing is written. The
        released two have the release's words and count by the release's scorer."""
        max_new_tokens: Annotated[int, at_least(1)] = DEFAULT_TOKENS
        """Limit of an answer in tokens, of two turns of the first; at least 1."""
        answer_tokens: Annotated[int, at_least(1)] = 64
        """Limit of the second of two turns in tokens; at least 1."""
        guidelines: GuidelineNames = (NEUTRAL,)
        """Names or paths of guidelines: each question is asked under each of them alone; several also vote."""
        samples: Annotated[int, at_least(1)] = 1
        """k, answers drawn per question and guideline; at least 1, and above 1 only with a temperature."""
        temperature: Annotated[float, at_least(0)] = 0.0
        """Of the answers; 0 takes the most likely token (greedy), above 0 draws."""
        image: tuple[ImageAblation, ...] = ("shown",)
        """Pictures: `shown`, `none` (no picture and no picture tokens), `blank` (mid-grey of the same size), `swapped`
        (of a question about another patient; in most released sets every picture stands for a patient). The first is
        the main way, which the matrix shows; each further one is asked for questions with pictures and reported beside
        it."""
        shuffle_options: Annotated[int, between(0, MOST_ORDERS)] = 0
        """r, further orders of the options in which each question is asked; 0 to 9, of which m options have m - 1."""
        paraphrase: Annotated[int, between(0, len(WORDINGS))] = 0
        """Further wordings in which each question is asked, the first of `datamodules.prompts.WORDINGS`; 0 to 4."""
        scorers: tuple[Official, ...] = ()
        """Scores of others that the report shows beside our strict and lenient ones."""
        routers: tuple[RouterName, ...] = ()
        """Rows `<experiment>/router/<name>` made of its experts' answers, where it has one for every column: `oracle`
        takes the expert of the question's own specialty; `learned` the one that a linear probe names, which is fitted
        on the base's states over pictures and questions of the training split. They ask the experts nothing more."""
        router_rows: Annotated[int, at_least(1)] = 96
        """Training questions per specialty that the learned router is fitted on, at least 1."""
        rows_at_once: Annotated[int, at_least(1)] = 150
        """Answers decoded together, and written to disk together; changes no result beyond rounding."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, values in (("guidelines", self.guidelines), ("image", self.image)):
                if not values or len(set(values)) != len(values):
                    raise ValueError(f"{name} must name at least one and none twice, got {list(values)}")
            if len(set(self.routers)) != len(self.routers):
                raise ValueError(f"routers must name none twice, got {list(self.routers)}")
            if self.samples > 1 and self.temperature == 0:
                raise ValueError(
                    f"samples must be at least 1, and 1 at temperature 0, where all are the same; got {self.samples} "
                    f"at temperature {self.temperature}"
                )
            if self.protocol != "single" and (self.guidelines != (NEUTRAL,) or self.paraphrase):
                raise ValueError(
                    f"protocol={self.protocol} asks in the release's own words: guidelines must be [{NEUTRAL}] and "
                    f"paraphrase 0, got {list(self.guidelines)} and {self.paraphrase}; protocol=single takes both"
                )
            if self.protocol == "likelihood" and (self.temperature or self.scorers or self.shuffle_options):
                raise ValueError(
                    "protocol=likelihood measures options that the question does not name, and writes no text: "
                    "temperature and shuffle_options must be 0, samples 1 and scorers [], got "
                    f"{self.temperature}, {self.shuffle_options}, {self.samples} and {list(self.scorers)}"
                )

    def __init__(self, config: Config | None = None, *, experiment: ExperimentContext) -> None:
        """Read the guidelines; arguments as of `ExperimentCallback`.

        Raises:
            ValueError: a guideline is unknown.
        """
        super().__init__(config, experiment=experiment)
        c = self.config
        self.guidelines = {g.name: g.instruction for g in load_guidelines(c.guidelines).values()}
        self.texts = TEXTS[c.protocol]
        self.variants = variants(c.image, c.shuffle_options, c.paraphrase)
        self.data_sha256 = cache(lambda specialty: data_sha256(experiment.data(specialty), c.split))
        self.asked = cache(self._asked)
        self.prompts = cache(self._prompts)

    @override
    def demands(self) -> Mapping[str, Demand]:
        c = self.config
        written = self.new_tokens
        if c.protocol == "two_turn":  # the second turn's words, and those of the release around the first
            written += c.answer_tokens + sum(len(text.encode()) for text in self.texts)
        return {c.split: Demand(tuple(self.guidelines.values()), written)}

    @override
    def finish(self) -> None:
        folder = self.experiment.folder.evaluation
        with locked(folder, "the evaluation"):
            predictions = self.predictions()
            main = by_variant(predictions)[""]
            table = matrix(main)
            training = self.training_answers()
            below = lines_below(predictions, training)
            texts = {
                "predictions.jsonl": "".join(prediction.to_json() + "\n" for prediction in predictions),
                "scores.json": json.dumps(self.scores(main), indent=2) + "\n",
                TRAINING_ANSWERS: json.dumps(training, indent=2) + "\n",
                "report.md": report(predictions, self.config.scorers, telling_tags(predictions), training) + "\n",
            }
            found = headroom(main)
            texts |= {"headroom.csv": headroom_csv(found)} if found else {}
            texts["matrix.csv"] = matrix_csv(table)  # the last: where it stands, the rest stands too
            write_board(folder, table, predictions, below)
            write_tables(folder, texts)
        print("\n" + matrix_text(table, below) + "\n", flush=True)
        if found:
            print(headroom_text(found) + "\n", flush=True)
        if (counted := MAIN.get(self.config.protocol)) is not None:
            print(f"counted by {counted}; the lenient reading stands beside it in {folder}/report.md\n", flush=True)

    @override
    def finish_share(self, index: int, count: int) -> None:
        with locked(self.experiment.folder.evaluation, "the evaluation", shared=True):
            todo = {cell.path: cell for cell in self.cells() if not cell.path.exists()}
            self.examination().run_share(list(todo.values()), index, count)

    @override
    def plan(self) -> str:
        """One line for a dry run: how questions would be asked, and by what they count."""
        c = self.config
        first, second = f"answers of at most {c.max_new_tokens} tokens", f"then of {c.answer_tokens}"
        told = {"single": first, "two_turn": f"{first}, {second}", "likelihood": "nothing is written"}[c.protocol]
        rows = f"; {c.router_rows} training questions per specialty for it" if "learned" in c.routers else ""
        routers = f"; routers {', '.join(c.routers)}{rows}" if c.routers else ""
        ways = f"{len(self.variants)} ways x {len(self.guidelines)} guidelines x {c.samples} samples"
        return f"protocol {c.protocol}, {told}; counts by {MAIN.get(c.protocol, 'strict')}; {ways}{routers}"

    # -- which questions in which way ----------------------------------------------------------------------------

    def training_answers(self) -> dict[str, dict[str, int]]:
        """How often which answer is right in the training rows of each specialty; sets for examination have none."""
        rows = {name: self.experiment.data(name).splits.get("train", ()) for name in self.specialties}
        return {name: answer_counts(held) for name, held in sorted(rows.items()) if held}

    @property
    def specialties(self) -> list[str]:
        """The columns: all specialties, or where nothing is trained those of `only`."""
        only = self.experiment.experiment.only if self.experiment.provides == "nothing" else ()
        return list(only) or self.experiment.specialties

    def cells(self) -> list[Cell]:
        """Every cell in the order of the file of predictions: the main way of all models first."""
        models = self.experiment.examined
        return [
            self.cell(model, tuple(adapters), specialty, variant, guideline)
            for variant in self.variants
            for model, adapters in models.items()
            for specialty in sorted(self.specialties)
            for guideline in self.guidelines
            if variant == self.variants[0] or self.asked(specialty, variant)
        ]

    def questions(self, cell: Cell) -> Sequence[Example]:
        """The questions of a cell as they are put."""
        return self.asked(cell.specialty, cell.variant)

    def chosen(self, specialty: str) -> Sequence[Example]:
        """The questions of a specialty that are asked, as the set has them.

        Raises:
            ValueError: a question without options would be asked by a protocol that needs them.
        """
        held = self.experiment.data(specialty).splits[self.config.split]
        found = held[: self.config.n] if self.config.n else held
        if self.texts and (free := [example.question_id for example in found if not example.options]):
            raise ValueError(
                f"protocol={self.config.protocol} needs options to choose from, and {len(free)} of {len(found)} "
                f"questions of {specialty!r} have none, such as {free[0]!r}; choose closed questions, such as by "
                "data.questions=yes_no where the set has that key, or protocol=single"
            )
        return found

    def _asked(self, specialty: str, variant: Variant) -> Sequence[Example]:
        held = self.experiment.data(specialty).splits[self.config.split]
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
        given |= {"max_new_tokens": str(c.max_new_tokens)} if self.new_tokens not in (0, DEFAULT_TOKENS) else {}
        given |= {"protocol": c.protocol} if self.texts else {}
        given |= {"answer_tokens": str(c.answer_tokens)} if c.protocol == "two_turn" else {}
        return given | variant.protocol

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

    # -- answers -------------------------------------------------------------------------------------------------

    def predictions(self) -> list[Prediction]:
        """Every cell's predictions, computed or found."""
        cells = self.cells()
        todo = {cell.path: cell for cell in reversed(cells) if not cell.path.exists()}
        if todo:
            self.compute(list(reversed(todo.values())))
        self.forget_pieces()
        blocks: dict[tuple, list[Prediction]] = {}
        for cell in cells:
            blocks.setdefault((cell.variant, cell.model, cell.specialty), []).extend(self.stored(cell))
        asked = [item for block in blocks.values() for item in sorted(block, key=lambda item: item.question_id)]
        return asked + self.routed(blocks)

    def routed(self, blocks: Blocks) -> list[Prediction]:
        """The rows of the routers, made of the experts' predictions."""
        c, groups = self.config, expert_rows(self.experiment.examined, self.specialties)
        routes: dict[str, Route] = {name: oracle for name in c.routers if groups}
        if "learned" in routes:
            file = self.experiment.folder.evaluation / "router.json"
            asked = {(name, way): self.asked(name, way) for name in self.specialties for way in self.variants}
            routes["learned"] = learned(self.experiment, c.router_rows, asked, self.data_sha256, file)
        return routed(groups, routes, blocks, self.variants)

    def stored(self, cell: Cell) -> list[Prediction]:
        """A cell's predictions with the hashes of what was asked, which follow from its name; errors of `read_cell`."""
        prompts = self.prompts(cell.specialty, cell.guideline)
        items = read_cell(cell, self.questions(cell), self.config.samples)
        return [replace(item, prompt_sha256=prompts[item.question_id], score_version=answers.VERSION) for item in items]

    def compute(self, todo: Sequence[Cell]) -> None:
        """Answer the questions of missing cells, in worker processes, each on a GPU, if the experiment has several."""
        experiment = self.experiment.experiment
        workers, start = min(experiment.workers, len(todo)), get_context("spawn")
        if workers > 1:
            places = start.Queue()
            for worker in range(workers):
                places.put(own_gpu(worker, experiment.trainer))
            with ProcessPoolExecutor(workers, start, initializer=take_gpu, initargs=(places,)) as pool:
                parts = [(self.config, self.experiment.without_data(), todo[i::workers]) for i in range(workers)]
                shares = [pool.submit(compute_part, *part) for part in parts]
                children = active_children()
                try:
                    for share in shares:
                        share.result()
                except BrokenProcessPool as error:
                    raise RuntimeError(how_a_worker_ended(children)) from error
        else:
            self.compute_here(todo)

    def compute_here(self, todo: Sequence[Cell]) -> None:
        """Answer the questions of missing cells in this process; each piece is on disk as soon as it is done."""
        self.examination().run(todo)

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

    @staticmethod
    def scores(predictions: Sequence[Prediction]) -> dict:
        """Model -> specialty -> every figure of `evaluation.scoring.Score`."""
        return {
            model: {specialty: asdict(score(rows)) for specialty, rows in columns.items()}
            for model, columns in parts_of(predictions).items()
        }


def write_tables(folder: Path, texts: Mapping[str, str]) -> None:
    """Write an evaluation's files and their manifest, unless they stand there as they would be written.

    Raises:
        DamagedError: a file that stands there is not as it was written; says how to make it anew.
    """
    remedy = f"move it elsewhere or delete it, and the same command writes it again from the cells in {folder}/cells"
    found = standing(folder / MANIFEST, remedy)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    if found is not None and {name: entry["sha256"] for name, entry in found["files"].items()} == hashes:
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    write_manifest(folder / MANIFEST, {name: entry_of(folder / name) for name in texts})


def how_a_worker_ended(children: Sequence[BaseProcess]) -> str:
    """Names the signal that ended a worker of the evaluation; the others were stopped because of it."""
    for child in children:
        child.join(timeout=5)
    codes = sorted(child.exitcode or 0 for child in children)
    code = next((code for code in codes if code < 0 and code != -signal.SIGTERM), codes[0] if codes else 0)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return (
        f"a worker process of the evaluation was ended by {name}{'; was memory short?' if name == 'SIGKILL' else ''}; "
        "what was answered is kept, and the same command goes on"
    )


def compute_part(config: EvaluateExperts.Config, experiment: ExperimentContext, todo: Sequence[Cell]) -> None:
    """What a worker process does: its share of the cells."""
    torch.set_num_threads(experiment.experiment.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    EvaluateExperts(config, experiment=experiment).compute_here(todo)

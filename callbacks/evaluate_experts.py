"""The matrix: base, every expert and every merged agent, on every specialty's test questions.

`callbacks.matrix_cells` says what is asked and where answers lie; docs/evaluation.md what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import override

from answering.decoding import ProtocolName
from answering.examination import Cell
from artifacts.adapter_files import acting_sha256
from artifacts.durable import write_text
from artifacts.folders import locked
from artifacts.manifest import MANIFEST, entry_of, standing, write_manifest
from callbacks.evaluation_board import write_board
from callbacks.experiment_callback import ExperimentCallback
from callbacks.matrix_cells import DEFAULT_TOKENS, MatrixCells
from callbacks.matrix_workers import answer_cells
from callbacks.routers import Blocks, Route, RouterName, learned, oracle, routed
from callbacks.settings_board import settings_of, write_table
from configs.schema import Component, Slot
from datamodules.base import VQADataModule
from datamodules.loading import Demand
from datamodules.prompts import NEUTRAL, WORDINGS
from evaluation.baselines import FILE as TRAINING_ANSWERS
from evaluation.baselines import answer_counts, lines_below
from evaluation.headroom import FILE as HEADROOM
from evaluation.headroom import headroom, headroom_csv, headroom_text
from evaluation.kept import FILE as KEPT_ANSWERS
from evaluation.kept import KEPT, kept_column
from evaluation.matrix_table import matrix_csv, matrix_text
from evaluation.odds import read_odds
from evaluation.predictions import Prediction, by_variant
from evaluation.prices import FILE as PRICES
from evaluation.routes import expert_rows
from evaluation.scorers import MAIN
from evaluation.scoring import matrix, score
from evaluation.tables import parts_of, report, telling_tags
from evaluation.variants import MOST_ORDERS, ImageAblation
from evaluation.verdict import FILE as VERDICT
from evaluation.verdict import verdict, verdict_json, verdict_text
from guards.ranges import Ranged, at_least, between
from lightning_modules.parts import GuidelineNames

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

Official = Literal["official:medxpertqa", "official:omnimedvqa", "official:medevalkit"]


class EvaluateExperts(ExperimentCallback):
    """Raw answers, scored strictly; lenient accuracy, parse rate, votes and variants stand beside it."""

    is_shared = True
    work = "examining, scoring and comparing"

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
        """The temperature of the answers; 0 takes the most likely token (greedy), above 0 draws."""
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
        kept: Annotated[Component, Slot(VQADataModule)] | None = None
        """The set of the base's own questions, {class_path, init_args}: what it could answer before experts were
        trained. Every row is asked them too, in the main way under the first guideline, and `kept` stands as a column
        beside the specialties: accuracy, and difference from the base. No mean, gate or router counts it. It has
        options of its own, none of those under `data` of the experiment; None asks nothing."""
        n_kept: Annotated[int, at_least(0)] = 60
        """Questions of that set, the first of the split in hash order; 0 takes all."""
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
        self.matrix = MatrixCells(self.config, experiment)

    @override
    def demands(self) -> Mapping[str, Demand]:
        c = self.config
        written = self.matrix.new_tokens
        if c.protocol == "two_turn":  # the second turn's words, and those of the release around the first
            written += c.answer_tokens + sum(len(text.encode()) for text in self.matrix.texts)
        return {c.split: Demand(tuple(self.matrix.guidelines.values()), written)}

    @override
    def further_data(self) -> Mapping[str, VQADataModule]:
        return {} if self.config.kept is None else {KEPT: self.matrix.data(KEPT)}

    @override
    def finish(self) -> None:
        folder = self.experiment.folder.evaluation
        with locked(folder, "the evaluation"):
            predictions, of_the_base = self.predictions()
            main = by_variant(predictions)[""]
            table, kept, claims = matrix(main), kept_column(of_the_base), verdict(main, of_the_base)
            recovered = headroom(main)
            training = self.training_answers()
            below = lines_below(predictions, training)
            prices = self.prices()
            beside = (training, of_the_base, prices, read_odds(folder))
            told = report(predictions, self.config.scorers, telling_tags(predictions), *beside)
            texts = {
                "predictions.jsonl": lines_of(predictions),
                "scores.json": json.dumps(self.scores(main), indent=2) + "\n",
                TRAINING_ANSWERS: json.dumps(training, indent=2) + "\n",
                **({PRICES: json.dumps(prices, indent=2) + "\n"} if self.experiment.endpoint else {}),
                "report.md": told + "\n",
                **({KEPT_ANSWERS: lines_of(of_the_base)} if of_the_base else {}),
                **({VERDICT: verdict_json(claims)} if claims else {}),
                **({HEADROOM: headroom_csv(recovered)} if recovered else {}),
                "matrix.csv": matrix_csv(table, kept),
            }
            write_board(folder, table, predictions, below, kept)
            write_table(folder, table, settings_of(self.experiment, [row.model for row in table]))
            acting = {name: list(map(acting_sha256, chain)) for name, chain in self.experiment.examined.items()}
            write_tables(folder, texts, acting)
        if not self.experiment.is_asked:  # the matrix of the experiment that is asked for has these rows too
            name = self.experiment.experiment.name
            print(f"{name}: {len(table)} models are examined; matrix and verdict: {folder}/report.md", flush=True)
            return
        print("\n" + matrix_text(table, below, kept) + "\n", flush=True)
        if recovered:
            print(headroom_text(recovered) + "\n", flush=True)
        if claims:
            print(verdict_text(claims) + "\n", flush=True)
        if (counted := MAIN.get(self.config.protocol)) is not None:
            print(f"counted by {counted}; the lenient reading stands beside it in {folder}/report.md\n", flush=True)

    @override
    def finish_share(self, index: int, count: int) -> bool:
        with locked(self.experiment.folder.evaluation, "the evaluation", shared=True):
            examination = self.matrix.examination()
            todo = {cell.path: cell for cell in self.matrix.cells() if not cell.path.exists()}
            return examination.run_share(list(todo.values()), index, count)

    @override
    def plan(self) -> str:
        """One line for a dry run: how questions would be asked, and by what they count."""
        c = self.config
        first, second = f"answers of at most {c.max_new_tokens} tokens", f"then of {c.answer_tokens}"
        told = {"single": first, "two_turn": f"{first}, {second}", "likelihood": "nothing is written"}[c.protocol]
        rows = f"; {c.router_rows} training questions per specialty for it" if "learned" in c.routers else ""
        routers = f"; routers {', '.join(c.routers)}{rows}" if c.routers else ""
        ways = f"{len(self.matrix.variants)} ways x {len(self.matrix.guidelines)} guidelines x {c.samples} samples"
        kept = f"; {c.n_kept or 'all'} of the base's own questions" if c.kept is not None else ""
        return f"protocol {c.protocol}, {told}; counts by {MAIN.get(c.protocol, 'strict')}; {ways}{kept}{routers}"

    def training_answers(self) -> dict[str, dict[str, int]]:
        """How often which answer is right in the training rows of each specialty; sets for examination have none."""
        rows = {name: self.experiment.data(name).splits.get("train", ()) for name in self.matrix.specialties}
        return {name: answer_counts(held) for name, held in sorted(rows.items()) if held}

    def prices(self) -> dict[str, dict[str, float]]:
        """What the tokens of a model behind an endpoint cost, where the settings say."""
        if self.experiment.endpoint is None:
            return {}
        config = self.experiment.endpoint[0].config
        price = config.price
        return {config.model: asdict(price)} if price.of(1, 1) else {}

    def predictions(self) -> tuple[list[Prediction], list[Prediction]]:
        """Every cell's predictions, computed or found: to the specialties' questions, and to the base's own."""
        matrix = self.matrix
        cells = matrix.cells()
        todo = {cell.path: cell for cell in reversed(cells) if not cell.path.exists()}
        if todo:
            self.compute(list(reversed(todo.values())))
        matrix.forget_pieces()
        blocks: dict[tuple, list[Prediction]] = {}
        for cell in cells:
            blocks.setdefault((cell.variant, cell.model, cell.specialty), []).extend(matrix.stored(cell))
        asked = [item for block in blocks.values() for item in sorted(block, key=lambda item: item.question_id)]
        own = [item for item in asked if item.specialty == KEPT] if self.config.kept is not None else []
        return asked[: len(asked) - len(own)] + self.routed(blocks), own

    def compute(self, todo: Sequence[Cell]) -> None:
        """Answer the questions of missing cells; errors as of `answer_cells`."""
        answer_cells(self.matrix, todo)

    def routed(self, blocks: Blocks) -> list[Prediction]:
        """The rows of the routers, made of the experts' predictions."""
        c, matrix, groups = self.config, self.matrix, expert_rows(self.experiment.examined, self.matrix.specialties)
        routes: dict[str, Route] = {name: oracle for name in c.routers if groups}
        if "learned" in routes:
            file = self.experiment.folder.evaluation / "router.json"
            asked = {(name, way): matrix.asked(name, way) for name in matrix.specialties for way in matrix.variants}
            routes["learned"] = learned(self.experiment, c.router_rows, asked, matrix.data_sha256, file)
        return routed(groups, routes, blocks, matrix.variants)

    @staticmethod
    def scores(predictions: Sequence[Prediction]) -> dict:
        """Model -> specialty -> every figure of `evaluation.scoring.Score`."""
        return {
            model: {specialty: asdict(score(rows)) for specialty, rows in columns.items()}
            for model, columns in parts_of(predictions).items()
        }


def lines_of(predictions: Sequence[Prediction]) -> str:
    """A file of predictions."""
    return "".join(prediction.to_json() + "\n" for prediction in predictions)


def write_tables(folder: Path, texts: Mapping[str, str], models: Mapping[str, Sequence[str]]) -> None:
    """Write an evaluation's files and their manifest, unless they stand there as they would be written.

    Args:
        folder: of the evaluation.
        texts: file name -> content.
        models: row -> hashes of the adapters that acted, so that nobody takes its numbers for those of later weights.

    Raises:
        DamagedError: a file that stands there is not as it was written; says how to make it anew.
    """
    remedy = f"move it elsewhere or delete it, and the same command writes it again from the cells in {folder}/cells"
    found = standing(folder / MANIFEST, remedy)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    held = {} if found is None else {name: entry["sha256"] for name, entry in found["files"].items()}
    if held == hashes and found.get("models") == models:
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in {KEPT_ANSWERS, VERDICT, HEADROOM, PRICES} - set(texts):  # of settings that were changed since
        (folder / name).unlink(missing_ok=True)
    for name, text in texts.items():  # the matrix last: where it stands, the rest stands too
        write_text(folder / name, text)
    write_manifest(folder / MANIFEST, {name: entry_of(folder / name) for name in texts}, models=models)

"""Can guidelines win on this expert and this data? Measured before any reinforcement learning.

    python -m experiment.prompt_gap --config sft_dsa.yaml                      every expert on its own specialty
    python -m experiment.prompt_gap --config sft_dsa_clinic.yaml --n 0         all questions of the split
    python -m experiment.prompt_gap --config evaluate.yaml 'adapters=[runs/sft_dsa/pediatrics]'     any adapter

Every question is answered k times (or --samples) under the neutral prompt and under each guideline. The verdict
compares pass@k of the neutral prompt with pass@k over the guidelines, k/K answers from each: as many on both sides.
Nothing is trained. Answers are kept like those of the matrix, and the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from answering.examination import Cell
from artifacts.adapter_files import is_complete
from artifacts.base_files import is_base_complete
from artifacts.durable import write_text
from artifacts.folders import locked
from artifacts.interrupts import as_program
from callbacks.evaluate_experts import EvaluateExperts
from configs.load import load
from datamodules.phantoms.base import GUIDELINES
from datamodules.prompts import NEUTRAL
from evaluation.predictions import Prediction
from evaluation.prompt_gap import PromptGap, by_type, mean_gap, prompt_gap, sentence, table, verdict
from evaluation.tables import telling_tags
from experiment.claim import refuse_changed
from experiment.command import add_experiment, ended
from experiment.context import ExperimentContext
from experiment.run import assemble
from guards.arguments import Parser

ALL, MEAN = "all", "mean of specialties"
Head = tuple[str, str, str]
"""(model, specialty, type of question)."""
TYPE = "question_type"
CAPTION = (
    "Accuracy is that of sampled answers, read strictly. pass@k is the chance that one of k answers is right (Chen et "
    "al. 2021); guided, k/K of them come from each of K guidelines. The difference is paired by question. Intervals "
    "cover 95 % and take the questions about one patient together; they are not corrected for the number of rows. "
    "Guesses count: one of m options at random has pass@k = 1 - (1 - 1/m)^k. Where both are near 100 %, a smaller --k "
    "tells more."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if it failed; 2 if the configuration or an option is refused; 130 if it was interrupted.
    """
    parser = Parser(
        prog="python -m experiment.prompt_gap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_experiment(parser, "its experts are finished")
    parser.add_argument("--models", nargs="+", default=[], help="patterns of row names; by default its own experts")
    parser.add_argument("--n", type=int, default=100, help="questions per specialty; 0 takes all")
    parser.add_argument("--split", default="val", choices=["val", "test"], help="val leaves the test questions unseen")
    parser.add_argument("--k", type=int, default=16, help="answers per question on each side")
    parser.add_argument("--samples", type=int, default=0, help="answers drawn under each prompt, at least k; 0: k")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the answers: that of the training to come")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="limit of an answer")
    parser.add_argument("--guidelines", nargs="+", default=list(GUIDELINES), help="names, or paths of guideline files")
    parser.add_argument(
        "--margin", type=float, default=3.0, help="points of pass@k below which there is nothing to win"
    )
    parser.add_argument("--out", type=Path, help="folder for prompt_gap.md and .json; by default the experiment's")
    given = parser.parse_intermixed_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return ended("prompt_gap", lambda: measured(opened(given), given), "the same command goes on where it stopped")


def opened(given: Namespace) -> ExperimentContext:
    """The experiment that the command line names, as its folder was made; errors as of `refuse_wrong_numbers`.

    Raises:
        ConfigError: other settings than the folder's.
    """
    refuse_wrong_numbers(given)
    loaded = load(given.config, given.overrides)
    torch.set_num_threads(loaded.experiment.threads)
    context = assemble(loaded)
    refuse_changed(context)
    return context


def refuse_wrong_numbers(given: Namespace) -> None:
    """Refuse options that do not go together, and fill in `samples`.

    Raises:
        ValueError: says which, and what would do.
    """
    count = len(given.guidelines)
    if NEUTRAL in given.guidelines or len(set(given.guidelines)) != count:
        raise ValueError(
            f"--guidelines {' '.join(given.guidelines)}: name each once, and not {NEUTRAL}: it is asked anyway"
        )
    if given.k < 2 or given.k % count:
        raise ValueError(
            f"--k {given.k}: expected a multiple of the {count} guidelines, at least 2, such as "
            f"{count * max(2, 16 // count)}, so that each gives as many answers"
        )
    given.samples = given.samples or given.k
    if given.samples < given.k:
        raise ValueError(f"--samples {given.samples}: must be at least --k {given.k}, or 0 for as many")
    if given.temperature <= 0:
        raise ValueError(
            f"--temperature {given.temperature:g}: must be above 0; at 0 all answers to a question are the same"
        )
    if not 0 < given.margin < 100:
        raise ValueError(f"--margin {given.margin:g}: must lie in (0, 100) points")


def measured(context: ExperimentContext, given: Namespace) -> str:
    """Ask, compare and write; returns what is shown.

    Raises:
        ValueError: no model has such a name, one is not finished, or there are no questions.
        AdapterError: an adapter is damaged, or of another base.
    """
    asking = EvaluateExperts.Config(
        n=given.n,
        split=given.split,
        max_new_tokens=given.max_new_tokens,
        guidelines=(NEUTRAL, *given.guidelines),
        samples=given.samples,
        temperature=given.temperature,
    )
    evaluation = EvaluateExperts(asking, experiment=context)
    chosen = chosen_rows(context, given.models)
    refuse_unfinished(context, chosen)
    cells = [
        evaluation.matrix.cell(
            model, tuple(context.examined[model]), specialty, evaluation.matrix.variants[0], guideline
        )
        for model, specialties in chosen.items()
        for specialty in specialties
        for guideline in evaluation.matrix.guidelines
    ]
    with locked(context.folder.evaluation, "the evaluation"):
        answers = answered(evaluation, cells)
    rows: dict[Head, PromptGap] = {}
    margin = given.margin / 100
    for (model, specialty), items in answers.items():
        rows[model, specialty, ALL] = prompt_gap(items, given.k)
        if TYPE in telling_tags(items):
            rows.update({(model, specialty, kind): gap for kind, gap in by_type(items, given.k, TYPE).items()})
    rows |= means({head: gap for head, gap in rows.items() if head[2] == ALL})
    sentences = {
        f"{model} on {specialty}": sentence(gap, given.k, margin)
        for (model, specialty, kind), gap in rows.items()
        if kind == ALL
    }
    text = "\n\n".join([table(rows, given.k), CAPTION, *(f"{name}: {one}" for name, one in sentences.items())])
    out = given.out or context.folder.evaluation
    write_text(out / "prompt_gap.md", text + "\n")
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "overrides")}
    found = [
        {"model": head[0], "specialty": head[1], "questions": head[2], "verdict": verdict(gap, margin), **asdict(gap)}
        for head, gap in rows.items()
    ]
    settings |= {"overrides": given.overrides, "seed": context.experiment.seed}
    content = {"settings": settings, "rows": found, "verdicts": sentences}
    write_text(out / "prompt_gap.json", json.dumps(content, indent=2) + "\n")
    return f"{text}\n\nwritten: {out}/prompt_gap.md, prompt_gap.json"


def means(gaps: Mapping[Head, PromptGap]) -> dict[Head, PromptGap]:
    """Means over the specialties of each model that was asked several, and of an experiment's experts on their own."""
    together: dict[str, list[PromptGap]] = {}
    for (model, specialty, _), gap in gaps.items():
        together.setdefault(model.removesuffix(f"/{specialty}"), []).append(gap)
    return {(name, MEAN, ALL): mean_gap(found) for name, found in together.items() if len(found) > 1}


def refuse_unfinished(context: ExperimentContext, rows: Iterable[str]) -> None:
    """Refuse models that are not there yet.

    Args:
        context: the experiment.
        rows: names of the models.

    Raises:
        ValueError: names the first that is missing, and how to make it.
    """
    bases = [one.folder.run(one.specialties[0]).base for one in context.lineage if one.provides == "base"]
    missing = [base for base in bases if not is_base_complete(base)]
    missing += [adapter for row in rows for adapter in context.examined[row] if not is_complete(adapter)]
    if missing:
        raise ValueError(
            f"{missing[0]}: is not finished, so there is nothing to ask; python train.py --config {context.path.name}, "
            "with the same settings, makes it"
        )


def chosen_rows(context: ExperimentContext, patterns: Sequence[str]) -> dict[str, list[str]]:
    """Row name -> the specialties that it is asked: an expert its own, any other model all.

    Args:
        context: the experiment; where it has `only`, no other specialty is asked.
        patterns: of row names; none takes the experiment's own experts, or where it has none all rows.

    Raises:
        ValueError: no row has such a name; says which there are. Or the experiment trains a base, and asks nothing.
    """
    if context.provides == "base":
        raise ValueError(
            f"{context.path.name} trains a base; name an experiment that requires it, such as evaluate.yaml, and "
            "--models base"
        )
    rows, specialties = list(context.examined), context.experiment.only or context.specialties
    own = [f"{context.experiment.name}/{specialty}" for specialty in specialties]
    wanted = list(patterns) or (own if context.provides == "expert" else ["*"])
    if unknown := [one for one in wanted if not any(fnmatchcase(row, one) for row in rows)]:
        raise ValueError(f"--models {unknown[0]}: no row has such a name; there are {', '.join(rows)}")
    experts = {
        f"{member.experiment.name}/{specialty}": [name for name in specialties if name == specialty]
        for member in context.lineage
        if member.provides == "expert"
        for specialty in member.specialties
    }
    return {row: experts.get(row, specialties) for row in rows if any(fnmatchcase(row, one) for one in wanted)}


def answered(evaluation: EvaluateExperts, cells: Sequence[Cell]) -> dict[tuple[str, str], list[Prediction]]:
    """(model, specialty) -> the answers of its cells, computed or found.

    Raises:
        ValueError: a specialty has no question.
    """
    for cell in cells:
        if not evaluation.matrix.questions(cell):
            raise ValueError(
                f"specialty {cell.specialty!r}: its {evaluation.config.split} split is empty; --split takes the other"
            )
    if todo := list({cell.path: cell for cell in cells if not cell.path.exists()}.values()):
        evaluation.compute(todo)
    evaluation.matrix.forget_pieces()
    found: dict[tuple[str, str], list[Prediction]] = {}
    for cell in cells:
        found.setdefault((cell.model, cell.specialty), []).extend(evaluation.matrix.stored(cell))
    return found


if __name__ == "__main__":
    as_program(main)

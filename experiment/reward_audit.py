"""What do the reward terms of an experiment pay to reasoning that never saw the picture? Asked before training.

    python -m experiment.reward_audit --config rl_gba.yaml                  some questions of every specialty
    python -m experiment.reward_audit --config rl_gba_judge.yaml --n 0      all that have worked traces

Every question is answered in four ways that need no model: by its own worked trace; blindly, by the trace of another
patient whose answer happens to be the same; wrongly, by the trace of another patient with another answer; and with the
bare conclusion. A term that looks at the picture pays the first more than the second. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from artifacts.durable import write_text
from configs.build import config_of
from configs.load import load
from datamodules.batch import Example
from evaluation.prompt_gap import level
from evaluation.report_files import markdown, percent
from experiment.command import add_experiment, ended
from experiment.context import ExperimentContext
from experiment.judges import attach_judges, check_judges, judge_models
from experiment.run import assemble
from guards.arguments import Parser
from lightning_modules.rewards.combine import judged
from lightning_modules.rewards.guidelines import Guideline
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_parts import RLParts
from lightning_modules.rl_settings import RLSettings

KINDS = ("own", "blind", "wrong", "bare")
CAPTION = (
    "own: the question's worked trace. blind: the trace of another patient with the same answer. wrong: the trace of "
    "another patient, answered as that one. bare: the conclusion alone. Scores are as they are paid, unweighted, means "
    "over questions and guidelines, intervals of 95 % by patient. The last column is the share of blind ones that are "
    "paid at least as much as the own trace: 100 % of them for a term that sees no picture, and that is no fault of "
    "`correct`, as a guess may be right."
)
Said = tuple[Example, Guideline, str, str]
"""(question, guideline, kind, completion)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if it failed; 2 if the configuration or an option is refused; 130 if it was interrupted.
    """
    parser = Parser(
        prog="python -m experiment.reward_audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_experiment(parser, "its module has rewards")
    parser.add_argument("--n", type=int, default=100, help="questions per specialty; 0 takes all")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"], help="whose questions")
    parser.add_argument("--out", type=Path, help="folder for reward_audit.md and .json; by default the experiment's")
    given = parser.parse_intermixed_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return ended("reward_audit", lambda: audit(assemble(load(given.config, given.overrides)), given), "nothing is kept")


def audit(context: ExperimentContext, given: Namespace) -> str:
    """Reward what is written, compare and write the table; returns what is shown.

    Raises:
        ConfigError: a reward model is not there.
        ValueError: the experiment has no rewards, or no question has a worked trace and a stranger for it.
    """
    torch.set_num_threads(context.experiment.threads)
    settings = config_of(context.experiment.module) if context.experiment.module else None
    if not isinstance(settings, RLSettings):
        raise ValueError(
            f"{context.path.name}: its module has no rewards; name an experiment of reinforcement learning"
        )
    if given.n < 0:
        raise ValueError(f"--n {given.n}: must be at least 0")
    check_judges(context)
    parts = RLParts.of(settings)
    if judge_models(context):
        policy, fingerprint = context.policy()
        policy.bare()
        attach_judges(context, policy, fingerprint)
        for term in parts.rewards.terms:
            term.attach(policy)
    rows: list[dict[str, object]] = []
    for specialty in context.specialties:
        said = list(written(context, specialty, parts.guidelines, given))
        if not said:
            raise ValueError(f"{specialty}: no {given.split} question has a worked trace and a stranger's beside it")
        rewards = parts.rewards.together([judged(text, example, guide) for example, guide, _, text in said])
        rows += [row(specialty, term, said, [one.parts[term.name] for one in rewards]) for term in parts.rewards.terms]
    head = ("specialty", "term", "n", *(f"{kind}, %" for kind in KINDS), "blind paid as much, %")
    text = markdown(head, [cells(found) for found in rows], names=2) + "\n\n" + CAPTION
    out = given.out or context.folder.path
    write_text(out / "reward_audit.md", text + "\n")
    asked = {"n": given.n, "split": given.split, "config": given.config, "overrides": given.overrides}
    write_text(out / "reward_audit.json", json.dumps({"settings": asked, "rows": rows}, indent=2) + "\n")
    return f"{text}\n\nwritten: {out}/reward_audit.md, reward_audit.json"


def written(
    context: ExperimentContext, specialty: str, guidelines: Mapping[str, Guideline], given: Namespace
) -> Iterator[Said]:
    """What is said to each question in the four ways, under every guideline that all have traces of."""
    data = context.data(specialty)
    questions = list(data.splits[given.split])[: given.n or None]
    everyone = list(data.splits["train"])
    for number, example in enumerate(questions):
        others = everyone[number:] + everyone[:number]  # another stranger for each question
        asked_alike = [o for o in others if o.patient_id != example.patient_id and o.question == example.question]
        for name, guide in guidelines.items():
            known = [
                other
                for other in asked_alike
                if name in other.reasoning and (not example.options or other.answer in example.options)
            ]
            same = next((other for other in known if other.answer == example.answer), None)
            other = next((other for other in known if other.answer != example.answer), None)
            if name not in example.reasoning or same is None or other is None:
                continue
            said = {
                "own": (example.reasoning[name], example.answer),
                "blind": (same.reasoning[name], example.answer),
                "wrong": (other.reasoning[name], other.answer),
                "bare": (f"so the answer is {example.answer}.", example.answer),
            }
            for kind, (thinking, answer) in said.items():
                yield example, guide, kind, f"<think>{thinking}</think><answer>{answer}</answer>"


def row(specialty: str, term: RewardTerm, said: Sequence[Said], scores: Sequence[float | None]) -> dict[str, object]:
    """One term on one specialty: means by kind, and how often the blind are paid as much; each (mean, low, high)."""
    least, most = min(0.0, term.lowest), max(0.0, term.highest)
    by_kind = {kind: [] for kind in KINDS}
    for (example, _, kind, _), score in zip(said, scores, strict=True):
        by_kind[kind].append((score, ("", example.patient_id)))
    found: dict[str, object] = {"specialty": specialty, "term": term.name, "n": len(by_kind["own"])}
    for kind, pairs in by_kind.items():
        known = [((score - least) / (most - least), patient) for score, patient in pairs if score is not None]
        bounds = level(*zip(*known, strict=True)) if known else ()
        found[kind] = tuple(least + (most - least) * value for value in bounds) or None
    pairs = zip(by_kind["own"], by_kind["blind"], strict=True)
    alike = [(blind >= own, who) for (own, who), (blind, _) in pairs if own is not None and blind is not None]
    found["blind_as_much"] = level(*zip(*alike, strict=True)) if alike else None
    return found


def cells(found: Mapping[str, object]) -> tuple[str, ...]:
    """A row for reading."""
    shown = (found[key] for key in (*KINDS, "blind_as_much"))
    values = ("-" if one is None else percent(*one) for one in shown)
    return (str(found["specialty"]), str(found["term"]), str(found["n"]), *values)


if __name__ == "__main__":
    sys.exit(main())

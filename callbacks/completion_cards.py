"""Fixed probe questions, answered now and then: one picture per question with image, completions, rewards, advantages."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from typing_extensions import override

from callbacks.experiment_callback import ExperimentCallback
from datamodules.batch import Batch, Example, load_image
from datamodules.prompts import question_text
from lightning_modules.rollout import sample

if TYPE_CHECKING:
    from lightning_modules.group import Group
    from lightning_modules.stage import Stage

WIDTH, PICTURE, LINE, MARGIN = 1000, 224, 17, 12
INK, FAINT, GOOD, BAD = (20, 20, 20), (110, 110, 110), (0, 110, 50), (170, 30, 30)


class CompletionCards(ExperimentCallback):
    """Draws `samples/<specialty>/<slot>`: the same validation questions at the same slots over time.

    A picture cannot carry markup, so nothing that a model writes is ever interpreted by the viewer's browser. The full
    record goes to `samples.jsonl`.
    """

    @dataclass(frozen=True)
    class Config:
        """How many, how often."""

        slots: int = 4
        """Probe questions, the first of the validation split."""
        every: int = 10
        """Optimiser steps between two looks; the first and the last step are always shown."""

        def __post_init__(self) -> None:
            if self.slots < 1 or self.every < 1:
                raise ValueError("slots and every must be at least 1")

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: Stage) -> None:
        if trainer.global_step == 0:
            self.show(trainer, pl_module)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Stage, *_: object) -> None:
        step = trainer.global_step
        if step % self.config.every == 0 or step >= trainer.max_steps:
            self.show(trainer, pl_module)

    def show(self, trainer: L.Trainer, stage: Stage) -> None:
        """Answer the probes and write cards and records."""
        specialty = stage.context.specialty
        data = self.experiment.data(specialty)
        probes = (data.splits["val"] or data.splits["train"])[: self.config.slots]
        records = self.records(stage, probes, trainer.global_step)
        writer = trainer.logger.experiment
        for slot, (example, rows) in enumerate(zip(probes, records, strict=True)):
            card = draw_card(example, rows, f"{specialty}, step {trainer.global_step}")
            tag = f"samples/{specialty}/{slot}"
            writer.add_image(tag, np.asarray(card), trainer.global_step, dataformats="HWC")
        path = self.experiment.folder.run(specialty).path / "samples.jsonl"
        with open(path, "a", encoding="utf-8") as file:
            for example, rows in zip(probes, records, strict=True):
                for row in rows:
                    record = {"step": trainer.global_step, "question_id": example.question_id, "gold": example.letter}
                    file.write(json.dumps(record | row) + "\n")

    @staticmethod
    def records(stage: Stage, probes: Sequence[Example], step: int) -> list[list[dict]]:
        """Per probe, what was answered and what it earned: a group of rollouts in RL, the greedy answer otherwise."""
        if hasattr(stage, "roll_out"):
            return group_records(stage.roll_out(Batch(tuple(probes)), "probe", 0))
        prompts = [stage.policy.prompt(example, "") for example in probes]
        completions = sample(stage.policy, prompts, max_new_tokens=96, temperature=0.0)
        return [[{"guideline": "neutral", "completion": completion.text}] for completion in completions]


def group_records(group: Group) -> list[list[dict]]:
    """The first rollout of each guideline, per question."""
    questions, k, g = group.shape
    records = []
    for question in range(questions):
        rows = []
        for index, name in enumerate(group.guidelines):
            row = (question * k + index) * g
            reward = group.rewards[row]
            rows.append({
                "guideline": name,
                "completion": group.completions[row].text,
                "reward": {part: getattr(reward, part) for part in ("total", "correct", "format", "adherence")},
                "gate": reward.gate,
                "advantage": float(group.advantages[question, index, 0]),
            })
        records.append(rows)
    return records


def draw_card(example: Example, rows: Sequence[dict], title: str) -> Image.Image:
    """One picture: the question's images on the left; question, right answer and completions on the right.

    Args:
        example: the question.
        rows: what was answered, as `group_records` gives it.
        title: first line.
    """
    lines: list[tuple[str, tuple[int, int, int]]] = [(title, FAINT)]
    for line in question_text(example).splitlines():
        lines += [(part, INK) for part in wrapped(line)]
    lines.append((f"right answer: {example.letter}) {example.answer}", GOOD))
    for row in rows:
        lines.append(("", INK))
        lines.append((headline(row), colour(row)))
        lines += [(part, INK) for part in wrapped(row["completion"])]
    pictures = [load_image(source) for source in example.images]
    pictures = [p.resize((PICTURE, round(PICTURE * p.height / p.width))) for p in pictures]
    height = max(LINE * len(lines), sum(p.height + MARGIN for p in pictures)) + 2 * MARGIN
    card = Image.new("RGB", (WIDTH, height), "white")
    top = MARGIN
    for picture in pictures:
        card.paste(picture, (MARGIN, top))
        top += picture.height + MARGIN
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(13)
    left = MARGIN if not pictures else PICTURE + 2 * MARGIN
    for number, (line, ink) in enumerate(lines):
        draw.text((left, MARGIN + LINE * number), line, fill=ink, font=font)
    return card


def headline(row: dict) -> str:
    """Guideline, rewards and advantage of one completion."""
    if "reward" not in row:
        return row["guideline"]
    parts = [f"{name} {'-' if value is None else format(value, '.2f')}" for name, value in row["reward"].items()]
    gate = f"  gate: {row['gate']}" if row["gate"] else ""
    return f"{row['guideline']}:  {'  '.join(parts)}  advantage {row['advantage']:+.2f}{gate}"


def colour(row: dict) -> tuple[int, int, int]:
    """Green for a right answer, red for a wrong one, grey where nothing was scored."""
    return FAINT if "reward" not in row else GOOD if row["reward"]["correct"] else BAD


def wrapped(text: str, width: int = 104, limit: int = 12) -> list[str]:
    """Lines of at most `width` characters, at most `limit` of them; control characters become visible."""
    visible = "".join(character if character.isprintable() else "␣" for character in text[:4000])
    return textwrap.wrap(visible, width)[:limit] or ["(empty)"]

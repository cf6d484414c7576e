"""Fixed probe questions, answered now and then: one card per question with pictures, completions and rewards."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import lightning as L
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from typing_extensions import override

from answering.asking import ask
from answering.decoding import Decoding
from artifacts.step_records import append, forget
from callbacks.experiment_callback import ExperimentCallback
from datamodules.batch import Batch, Example, load_image
from datamodules.prompts import NEUTRAL, question_text
from guards.ranges import Ranged, at_least

if TYPE_CHECKING:
    from lightning_modules.rollouts import Rollouts
    from lightning_modules.stage import Stage

WIDTH, PICTURE, LINE, MARGIN = 1000, 224, 17, 12
MOST_PICTURES, MOST_LINES = 6, 20
"""Pictures, and lines of the question, on one card."""
INK, FAINT, GOOD, BAD = (20, 20, 20), (110, 110, 110), (0, 110, 50), (170, 30, 30)


class CompletionCards(ExperimentCallback):
    """Draws `samples/<specialty>/<slot>`: the same validation questions at the same slots over time.

    A picture cannot carry markup, so nothing that a model writes is ever interpreted by the viewer's browser. The full
    record goes to `samples.jsonl`.
    """

    @dataclass(frozen=True)
    class Config(Ranged):
        """How many, how often."""

        slots: Annotated[int, at_least(1)] = 4
        """Probe questions, the first of the validation split."""
        every: Annotated[int, at_least(1)] = 10
        """Optimiser steps between two looks; the first and the last step are always shown."""

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: Stage) -> None:
        step = trainer.global_step
        self.shown_at = step
        # An interrupted run may have come further than its checkpoint; what it showed there is withdrawn.
        shown = trainer.is_global_zero and forget(self.records_file(pl_module), step)
        if trainer.strategy.broadcast(shown) or step == 0:
            self.show(trainer, pl_module)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Stage, *_: object) -> None:
        step, every = trainer.global_step, self.config.every
        if step == self.shown_at or (step // every == self.shown_at // every and step < trainer.max_steps):
            return
        self.shown_at = step
        self.show(trainer, pl_module)

    def records_file(self, stage: Stage) -> Path:
        """Where the full record of a run's probes goes."""
        return self.experiment.folder.run(stage.context.specialty).path / "samples.jsonl"

    def show(self, trainer: L.Trainer, stage: Stage) -> None:
        """Answer the probes and write cards and records; the first of several devices does, and others go on."""
        if not trainer.is_global_zero:
            return
        specialty = stage.context.specialty
        data = self.experiment.data(specialty)
        probes = (data.splits["val"] or data.splits["train"])[: self.config.slots]
        records = self.records(stage, probes)
        writer, step = trainer.logger.experiment, trainer.global_step
        for slot, (example, rows) in enumerate(zip(probes, records, strict=True)):
            card = draw_card(example, rows, f"{specialty}, step {step}")
            tag = f"samples/{specialty}/{slot}"
            writer.add_image(tag, np.asarray(card), stage.batches_done, dataformats="HWC")
        append(
            self.records_file(stage),
            [
                {"step": step, "question_id": example.question_id, "gold": gold(example)} | row
                for example, rows in zip(probes, records, strict=True)
                for row in rows
            ],
        )

    @staticmethod
    def records(stage: Stage, probes: Sequence[Example]) -> list[list[dict]]:
        """Per probe, what was answered and what it earned: a group of rollouts in RL, the greedy answer otherwise."""
        if hasattr(stage, "roll_out"):
            return rollout_records(stage.roll_out(Batch(tuple(probes)), "probe", 0))
        given = ask(stage.policy, probes, "", Decoding(max_new_tokens=96))
        return [[{"guideline": NEUTRAL, "completion": answer.completion}] for answer in given]


def rollout_records(rollouts: Rollouts) -> list[list[dict]]:
    """The first rollout of each guideline, per question."""
    size = rollouts.layout.size
    first = [place for place, (_, copy) in enumerate(rollouts.layout.places) if copy == 0]
    return [
        [rollout_record(rollouts, question * size + place) for place in first]
        for question in range(len(rollouts.examples))
    ]


def rollout_record(rollouts: Rollouts, row: int) -> dict:
    """What one rollout wrote and earned; rewards by term, unweighted."""
    reward = rollouts.rewards[row]
    return {
        "guideline": rollouts.guideline(row),
        "completion": rollouts.completions[row].text,
        "reward": {"total": reward.total, **reward.parts},
        "right": reward.right,
        "gate": reward.gate,
        "advantage": float(rollouts.advantages.flatten()[row]),
    }


def draw_card(example: Example, rows: Sequence[dict], title: str) -> Image.Image:
    """One picture: the question's images on the left; question, right answer and completions on the right.

    Args:
        example: the question.
        rows: what was answered, as `rollout_records` gives it.
        title: first line.
    """
    lines: list[tuple[str, tuple[int, int, int]]] = [(title, FAINT)]
    for line in question_text(example).splitlines()[:MOST_LINES]:
        lines += [(part, INK) for part in wrapped(line)]
    lines += [(part, GOOD) for part in wrapped(f"right answer: {right_answer(example)}")]
    for row in rows:
        lines.append(("", INK))
        lines.append((headline(row), colour(row)))
        lines += [(part, INK) for part in wrapped(row["completion"])]
    pictures = [fitted(load_image(source)) for source in example.images[:MOST_PICTURES]]
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


def gold(example: Example) -> str:
    """The right option's letter; of an open question the answer itself."""
    return example.letter if example.options else example.answer


def right_answer(example: Example) -> str:
    """The right answer with its letter, where it has one."""
    return f"{example.letter}) {example.answer}" if example.options else example.answer


def fitted(picture: Image.Image) -> Image.Image:
    """The picture as large as fits into the square that a card has for it, its proportions kept."""
    scale = PICTURE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def headline(row: dict) -> str:
    """Guideline, rewards and advantage of one completion."""
    if "reward" not in row:
        return row["guideline"]
    parts = [f"{name} {'-' if value is None else format(value, '.2f')}" for name, value in row["reward"].items()]
    gate = f"  gate: {row['gate']}" if row["gate"] else ""
    return f"{row['guideline']}:  {'  '.join(parts)}  advantage {row['advantage']:+.2f}{gate}"


def colour(row: dict) -> tuple[int, int, int]:
    """Green for a right answer, red for a wrong one, grey where nothing was scored."""
    return FAINT if "reward" not in row else GOOD if row["right"] else BAD


def wrapped(text: str, width: int = 104, limit: int = 12) -> list[str]:
    """Lines of at most `width` characters, at most `limit` of them; control characters become visible."""
    visible = "".join(character if character.isprintable() else "␣" for character in text[:4000])
    return textwrap.wrap(visible, width)[:limit] or ["(empty)"]

"""The memory of one run under its settings, and under those that need less; nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from configs.build import build, config_of, import_class
from configs.schema import AGENT, Experiment
from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.graded import Graded
from datamodules.prompts import prompt_text
from datamodules.sight import drawn_tokens
from experiment.context import ExperimentContext
from experiment.ranks import acting_ranks, held_ranks
from experiment.seeing import outline
from lightning_modules.distillation import AHEAD
from lightning_modules.distillation_settings import IntegrationSettings
from lightning_modules.engines.packed import Packed
from lightning_modules.families.base import ImageInput, VisionLanguageFamily
from lightning_modules.layout import layout_of
from lightning_modules.memory.estimate import Piece, RolloutShape, ShapedModel
from lightning_modules.picture_reading import PictureReader
from lightning_modules.rl_settings import RLSettings
from lightning_modules.sharding import NAME as FSDP2

LOOKED_AT = 64
"""Questions of each set whose lengths are measured."""


@dataclass(frozen=True)
class Settings:
    """What decides how much memory a run takes, beside the model and its data."""

    checkpoint_layers: bool
    micro_batch_tokens: int
    rows_at_once: int
    packed: bool

    def written(self, other: Settings) -> str:
        """What must be set to come here from other settings."""
        ours = {
            "module.init_args.checkpoint_layers": "true" if self.checkpoint_layers else "false",
            "module.init_args.micro_batch_tokens": str(self.micro_batch_tokens),
            "module.init_args.engine.init_args.rows_at_once": str(self.rows_at_once),
            "model.init_args.quantize": "nf4" if self.packed else "none",
        }
        before = (str(value).lower() for value in vars(other).values())
        same = dict(zip(ours, before, strict=True)) | {"model.init_args.quantize": "nf4" if other.packed else "none"}
        return " ".join(f"{name}={value}" for name, value in ours.items() if value != same[name])


@dataclass
class MemoryOfRun:
    """The estimate of one run, by settings.

    Attributes:
        context: of an experiment that trains an adapter.
        run: a specialty, or `AGENT`.
    """

    context: ExperimentContext
    run: str

    @cached_property
    def config(self) -> Any:
        """The stage's."""
        return config_of(self.context.experiment.module)

    @cached_property
    def asked(self) -> Settings:
        """As the configuration says."""
        engine = (self.config.engine if self.writes else {}).get("init_args") or {}
        rows = int(engine.get("rows_at_once", Packed.Config().rows_at_once))
        packed = getattr(self.family.config, "quantize", "none") == "nf4"
        return Settings(self.config.checkpoint_layers, self.config.micro_batch_tokens, rows, packed)

    @cached_property
    def family(self) -> VisionLanguageFamily:
        """Reads questions, and has no weights."""
        return outline(self.context)

    @property
    def writes(self) -> bool:
        """Whether its steps write answers to learn from."""
        return isinstance(self.config, RLSettings | IntegrationSettings)

    @property
    def builtin(self) -> bool:
        """Whether these are written in this process, so many rows at once as is set."""
        return self.writes and import_class(self.config.engine["class_path"]) is Packed

    @cached_property
    def sets(self) -> list[VQADataModule]:
        """What it trains on, by specialty."""
        names = self.context.specialties if self.run == AGENT else [self.run]
        return [self.context.data(name) for name in names]

    def shaped(self, packed: bool) -> ShapedModel:
        """The model with its adapters, without contents."""
        if packed not in self._shaped:
            compared = isinstance(self.config, IntegrationSettings) and self.config.form != "policy_gradient"
            ranks = acting_ranks(self.context, self.run)
            low = self.context.experiment.precision == "bf16" or packed
            low = low or getattr(self.family.config, "dtype", "") == "bfloat16"
            bare = build(self.context.experiment.model, weights=self.family.weights, outline=True)
            beside = {"held": held_ranks(self.context), "compared": compared, "picture": self.picture}
            self._shaped[packed] = ShapedModel(bare, ranks, **beside, low=low, packed=packed)
        return self._shaped[packed]

    @cached_property
    def _shaped(self) -> dict[bool, ShapedModel]:
        return {}

    @cached_property
    def looked_at(self) -> list[tuple[VQADataModule, Example]]:
        """The questions that are measured, with their sets."""
        replayed = [] if self.context.replayed is None else [self.context.replayed]
        return [(data, example) for data in (*self.sets, *replayed) for example in few(data)]

    @cached_property
    def picture(self) -> ImageInput | None:
        """The largest of their pictures, as the tower takes it; None where they have none."""
        to_input = self.family.to_input
        sources = [source for _, example in self.looked_at for source in example.images]
        largest = max(sources, key=lambda source: drawn_tokens(source, to_input), default=None)
        return None if largest is None else PictureReader(to_input)(largest)[1]

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Tokens of the longest prompt without an instruction, of the longest with one, of the longest trace.

        Of graded answers, those of all to one question in place of a trace.
        """
        family, demand = self.family, self.context.stage_class.demand(self.config)
        short, long, trace = 1, 2, 1
        for data, example in self.looked_at:
            pictures = [drawn_tokens(source, family.to_input) for source in example.images]
            ids = [len(family.prompt_ids(prompt_text(example, text), pictures)) for text in demand.instructions]
            short, long = max(short, min(ids)), max(long, *ids)
            if isinstance(example, Graded):  # its answers are branches of one line
                trace = max(trace, sum(len(family.text_ids(text)) + 2 for text in example.answers))
            texts = (example.trace(name, data.config.answer_with) for name in example.reasoning)
            trace = max(trace, *(len(family.text_ids(text)) + 1 for text in texts), 1)
        return short, long, trace

    def piece(self, settings: Settings) -> Piece:
        """The largest micro-batch."""
        c, budget = self.config, settings.micro_batch_tokens
        short, long, trace = self.lengths
        after = c.max_new_tokens if self.writes else trace
        if self.group == 1:
            row = long + after
            return Piece(0, 0, max(1, min(self.questions, budget // row)), row, after)
        group, row = self.group, long - short + 1 + after
        questions = min(self.questions, budget // (short + group * row))
        if questions:
            return Piece(questions, short, questions * group, row, after)
        return Piece(1, short, min(group, max(1, (budget - short) // row)), row, after)

    @property
    def group(self) -> int:
        """Rows to one question."""
        c = self.config
        if isinstance(c, RLSettings):
            return layout_of(c.guidelines, c.rollouts_per_guideline, c.neutral_share).size
        return c.rollouts_per_question if isinstance(c, IntegrationSettings) else 1

    @property
    def questions(self) -> int:
        """Questions, or rows to imitate, that one device has of a step, and may have in one piece."""
        c = self.config
        if isinstance(c, IntegrationSettings):  # a piece is of one specialty
            return min(c.questions_per_specialty, self.share(c.questions_per_specialty * len(self.sets)))
        return self.share(c.questions_per_step if isinstance(c, RLSettings) else self.sets[0].config.batch_size)

    def share(self, size: int) -> int:
        """The most that one device has of what a step takes over all."""
        return -(-size // devices_of(self.context.experiment))

    def decoding(self, settings: Settings) -> RolloutShape | None:
        """The most rollouts that are written together, where any are."""
        wanted = [(min(settings.rows_at_once, rows), copies) for rows, copies in self.written()]
        if not wanted:
            return None  # nothing is written, or in another process
        rows, copies = max(wanted, key=lambda one: (one[0], -one[1]))
        return RolloutShape(rows, max(1, rows // copies), self.lengths[1], self.config.max_new_tokens)

    def written(self) -> Iterator[tuple[int, int]]:
        """(rows, of which so many have one prompt) that are written in this process, were there no bound on rows."""
        c = self.config
        if isinstance(c, RLSettings) and self.builtin:
            layout = layout_of(c.guidelines, c.rollouts_per_guideline, c.neutral_share)
            yield self.group * self.questions, max(1, self.group // len(layout.counts))
        if isinstance(c, IntegrationSettings):
            if self.builtin:
                yield self.group * self.share(c.questions_per_specialty * len(self.sets)), self.group
            if c.gate != "none":
                yield (1 + AHEAD) * self.questions * c.gate_samples, c.gate_samples

    def parts(self, settings: Settings) -> dict[str, int]:
        """Bytes by what they are for."""
        shaped, piece, decoding = self.shaped(settings.packed), self.piece(settings), self.decoding(settings)
        step = shaped.activations(piece, checkpoint_layers=settings.checkpoint_layers)
        devices = devices_of(self.context.experiment)
        in_parts = devices > 1 and self.context.experiment.trainer.get("strategy") == FSDP2
        gathered = shaped.gathered if in_parts and self.writes else 0
        return {
            "weights": shaped.weights_on(devices) if in_parts else shaped.weights,
            "adapters": shaped.adapters,
            "moments": shaped.moments(self.config.optimizer),
            "gradients to send": shaped.gradients // 2 if devices > 1 else 0,
            "gradients": shaped.gradients,
            "activations": step,
            "picture tower": shaped.seeing,
            "rollouts": gathered + (shaped.decoding(decoding) if decoding else 0),
        }

    def need(self, settings: Settings) -> int:
        """The most bytes at a time: pictures, training and rollouts take turns."""
        if settings not in self._needs:
            parts = self.parts(settings)
            lasting = parts["weights"] + parts["adapters"] + parts["moments"] + parts["gradients to send"]
            step = parts["gradients"] + max(parts["activations"], parts["picture tower"])
            self._needs[settings] = lasting + max(step, parts["rollouts"])
        return self._needs[settings]

    @cached_property
    def _needs(self) -> dict[Settings, int]:
        return {}

    def remedies(self) -> Iterator[Settings]:
        """Settings that need less and less; only the last ones, in four bits, change a result beyond rounding."""
        found = replace(self.asked, checkpoint_layers=True)
        yield found
        longest = self.piece(replace(found, micro_batch_tokens=1)).tokens
        while found.micro_batch_tokens // 2 >= longest:
            found = replace(found, micro_batch_tokens=found.micro_batch_tokens // 2)
            if self.builtin:
                found = replace(found, rows_at_once=min(found.rows_at_once, max(8, found.rows_at_once // 2)))
            yield found
        if hasattr(self.family.config, "quantize") and not found.packed:
            yield replace(self.asked, packed=True)
            yield replace(found, packed=True)

    def fitting(self, room: int) -> Settings | None:
        """The settings nearest to those asked for that fit, or None."""
        return next((settings for settings in (self.asked, *self.remedies()) if self.need(settings) <= room), None)

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Arguments of the module in which settings differ from those asked for; four bits are the model's."""
        asked, names = self.asked, ("checkpoint_layers", "micro_batch_tokens")
        found = {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(asked, name)}
        if settings.rows_at_once != asked.rows_at_once:
            given = self.config.engine.get("init_args") or {}
            found["engine"] = {**self.config.engine, "init_args": {**given, "rows_at_once": settings.rows_at_once}}
        return found


def few(data: VQADataModule) -> Sequence[Example]:
    """The training questions of a set whose lengths are measured."""
    return data.splits["train"][:LOOKED_AT]


def devices_of(experiment: Experiment) -> int:
    """How many devices the run has in all."""
    asked, nodes = experiment.trainer.get("devices", 1), experiment.trainer.get("num_nodes", 1)
    if isinstance(asked, list):
        return len(asked) * nodes
    return nodes * max(1, int(asked) if str(asked).isdigit() else torch.cuda.device_count())  # 0 is refused elsewhere

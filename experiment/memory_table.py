"""Whether a run fits into memory, told before its weights are loaded, and which setting would make it fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from configs.build import build, config_of, import_class
from configs.problems import ConfigError, Problem
from configs.schema import Experiment
from datamodules.graded import Graded
from datamodules.prompts import prompt_text
from datamodules.sight import drawn_tokens
from experiment.context import ExperimentContext
from experiment.seeing import outline
from lightning_modules.engines.packed import Packed
from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.layout import layout_of
from lightning_modules.memory.estimate import Piece, RolloutShape, ShapedModel
from lightning_modules.rl_settings import RLSettings
from lightning_modules.sharding import NAME as FSDP2

GIB = 2**30
CARDS = (24, 40, 80, 141)
"""Sizes of cards in GiB."""
OVERHEAD = GIB
"""What a card's driver and kernels, the picture features held, and the vision tower's own pass take."""
LOOKED_AT = 64
"""Questions whose lengths are measured."""


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
    """The estimate of one specialty's run, by settings.

    Attributes:
        context: of an experiment that trains an adapter.
        specialty: whose rows are measured.
    """

    context: ExperimentContext
    specialty: str

    @cached_property
    def config(self) -> Any:
        """The stage's."""
        return config_of(self.context.experiment.module)

    @cached_property
    def asked(self) -> Settings:
        """As the configuration says."""
        engine = (self.config.engine if isinstance(self.config, RLSettings) else {}).get("init_args") or {}
        rows = int(engine.get("rows_at_once", Packed.Config().rows_at_once))
        packed = getattr(self.family.config, "quantize", "none") == "nf4"
        return Settings(self.config.checkpoint_layers, self.config.micro_batch_tokens, rows, packed)

    @cached_property
    def family(self) -> VisionLanguageFamily:
        """Reads questions, and has no weights."""
        return outline(self.context)

    def shaped(self, packed: bool) -> ShapedModel:
        """The model with its adapters, without contents."""
        if packed not in self._shaped:
            lineage = [c for c in self.context.lineage if c.provides == "expert"]
            ranks = [config_of(c.experiment.module).lora_rank for c in lineage]
            low = self.context.experiment.precision == "bf16" or packed
            low = low or getattr(self.family.config, "dtype", "") == "bfloat16"
            bare = build(self.context.experiment.model, weights=self.family.weights, outline=True)
            self._shaped[packed] = ShapedModel(bare, ranks, low=low, packed=packed)
        return self._shaped[packed]

    @cached_property
    def _shaped(self) -> dict[bool, ShapedModel]:
        return {}

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Tokens of the longest prompt without an instruction, of the longest with one, of the longest trace.

        Of graded answers, those of all to one question in place of a trace.
        """
        data, family = self.context.data(self.specialty), self.family
        demand = self.context.stage_class.demand(self.config)
        short, long, trace = 1, 2, 1
        replayed = [] if self.context.replayed is None else self.context.replayed.splits["train"][:LOOKED_AT]
        for example in (*data.splits["train"][:LOOKED_AT], *replayed):
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
        if not isinstance(c, RLSettings):
            row = long + trace
            rows = min(self.context.data(self.specialty).config.batch_size, budget // row)
            return Piece(0, 0, max(1, rows), row, trace)
        row = long - short + 1 + c.max_new_tokens
        group = layout_of(c.guidelines, c.rollouts_per_guideline, c.neutral_share).size
        questions = min(c.questions_per_step, budget // (short + group * row))
        if questions:
            return Piece(questions, short, questions * group, row, c.max_new_tokens)
        return Piece(1, short, min(group, max(1, (budget - short) // row)), row, c.max_new_tokens)

    def decoding(self, settings: Settings) -> RolloutShape | None:
        """The most rollouts that are written together, where any are."""
        c = self.config
        if not isinstance(c, RLSettings) or import_class(c.engine["class_path"]) is not Packed:
            return None  # nothing is written, or in another process
        group = layout_of(c.guidelines, c.rollouts_per_guideline, c.neutral_share).size
        rows = min(settings.rows_at_once, group * c.questions_per_step)
        layout = layout_of(c.guidelines, c.rollouts_per_guideline, c.neutral_share, oracle=bool(c.oracle_tag))
        each = max(1, group // len(layout.counts))
        return RolloutShape(rows, max(1, rows // each), self.lengths[1], c.max_new_tokens)

    def parts(self, settings: Settings) -> dict[str, int]:
        """Bytes by what they are for."""
        shaped, piece, decoding = self.shaped(settings.packed), self.piece(settings), self.decoding(settings)
        step = shaped.activations(piece, checkpoint_layers=settings.checkpoint_layers)
        devices = devices_of(self.context.experiment) if self.context.experiment.trainer.get("strategy") == FSDP2 else 1
        gathered = shaped.gathered if devices > 1 and isinstance(self.config, RLSettings) else 0
        return {
            "weights": shaped.weights if devices == 1 else shaped.weights_on(devices),
            "adapters": shaped.adapters,
            "moments": shaped.moments(self.config.optimizer),
            "gradients": shaped.gradients,
            "activations": step,
            "rollouts": gathered + (shaped.decoding(decoding) if decoding else 0),
        }

    def need(self, settings: Settings) -> int:
        """The most bytes at a time: training and rollouts take turns."""
        if settings not in self._needs:
            parts = self.parts(settings)
            lasting = parts["weights"] + parts["adapters"] + parts["moments"]
            self._needs[settings] = lasting + max(parts["gradients"] + parts["activations"], parts["rollouts"])
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
            if self.decoding(found):
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


def memory_lines(context: ExperimentContext, specialty: str) -> list[str]:
    """What a run needs, for this machine and for cards of several sizes.

    Raises:
        ConfigError: it does not fit here; names the setting that would make it fit.
    """
    if not can_be_estimated(context):
        return ["  memory: not estimated; a stage of its own kind does not say the rank of its adapter"]
    run = MemoryOfRun(context, specialty)
    name, room = own_device(context.experiment)
    piece, decoding, need = run.piece(run.asked), run.decoding(run.asked), run.need(run.asked)
    told = ", ".join(f"{what} {size / GIB:.2f}" for what, size in run.parts(run.asked).items() if size)
    rows = f"; {decoding.rows} rollouts at once" if decoding else ""
    verdicts = [f"{name} {verdict(run, room)}"]
    verdicts += [f"{size} GiB {verdict(run, size * GIB)}" for size in CARDS]
    here = fitting_here(run)
    return [
        f"  memory, GiB: {told}; at most {need / GIB:.2f} at a time, in micro-batches of {piece.tokens} tokens{rows}",
        f"  fits: {'; '.join(verdicts)}",
        *([f"  fit.memory=auto sets {here.written(run.asked)}"] if here != run.asked else []),
    ]


def can_be_estimated(context: ExperimentContext) -> bool:
    """Whether every stage of the lineage says what its adapter is like."""
    stages = (config_of(c.experiment.module) for c in context.lineage if c.provides == "expert")
    return context.provides == "expert" and all(hasattr(stage, "lora_rank") for stage in stages)


def fitting_here(run: MemoryOfRun) -> Settings:
    """The settings that a run has on this machine: those asked for, or with `fit.memory=auto` the nearest that fit.

    Raises:
        ConfigError: none fits; names a setting that would.
    """
    name, room = own_device(run.context.experiment)
    auto = run.context.experiment.fit.memory == "auto"
    exact = [s for s in (run.asked, *run.remedies()) if s.packed == run.asked.packed] if auto else [run.asked]
    found = next((settings for settings in exact if run.need(settings) + OVERHEAD <= room), None)
    if found is None:
        raise ConfigError([too_large(run.context, run, name, room)])
    return found


def verdict(run: MemoryOfRun, room: int) -> str:
    """Whether settings fit, or which do."""
    fitting = run.fitting(room - OVERHEAD)
    if fitting is None:
        return "no, whatever is set"
    if fitting == run.asked:
        return "yes"
    return f"no, but with {fitting.written(run.asked)} ({run.need(fitting) / GIB:.1f} GiB)"


def too_large(context: ExperimentContext, run: MemoryOfRun, name: str, room: int) -> Problem:
    """Say that a run does not fit, and what would."""
    fitting = run.fitting(room - OVERHEAD)
    changed = "" if fitting is None else fitting.written(run.asked)
    remedy = f"set {changed}" if changed else "no setting makes it fit; take a smaller model, or a larger card"
    needed = f"{(run.need(run.asked) + OVERHEAD) / GIB:.1f} GiB are needed, and {name} has {room / GIB:.1f}"
    key = changed.partition("=")[0] or "model"
    return Problem(str(context.path), key, None, f"{needed}: {remedy}")


def devices_of(experiment: Experiment) -> int:
    """How many devices the run has in all."""
    asked, nodes = experiment.trainer.get("devices", 1), experiment.trainer.get("num_nodes", 1)
    if isinstance(asked, list):
        return len(asked) * nodes
    return nodes * (int(asked) if str(asked).isdigit() else max(1, torch.cuda.device_count()))


def own_device(experiment: Experiment) -> tuple[str, int]:
    """What the run would be on, and its bytes."""
    if torch.cuda.is_available() and experiment.trainer.get("accelerator") != "cpu":
        found = torch.cuda.get_device_properties(0)
        return found.name, found.total_memory
    return "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

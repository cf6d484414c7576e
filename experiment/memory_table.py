"""Whether a run fits into memory, told before its weights are loaded, and which setting would make it fit."""

from __future__ import annotations

import os

import torch

from configs.build import config_of
from configs.problems import ConfigError, Problem
from configs.schema import Experiment
from experiment.context import ExperimentContext
from experiment.memory_of_run import MemoryOfRun, Settings

GIB = 2**30
CARDS = (24, 40, 80, 141)
"""Sizes of cards in GiB."""
OVERHEAD = GIB
"""What a card's driver and kernels, and the picture features held take."""


def memory_lines(context: ExperimentContext, named: str) -> list[str]:
    """What a run needs, for this machine and for cards of several sizes.

    Raises:
        ConfigError: it does not fit here; names the setting that would make it fit.
    """
    if not can_be_estimated(context):
        return ["  memory: not estimated; a stage of its own kind does not say the rank of its adapter"]
    run = MemoryOfRun(context, named)
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
    """Whether an adapter is trained, and every stage of the lineage says what its own is like."""
    trained = ("expert", "agent")
    stages = (config_of(c.experiment.module) for c in context.lineage if c.provides in trained)
    return context.provides in trained and all(hasattr(stage, "lora_rank") for stage in stages)


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


def own_device(experiment: Experiment) -> tuple[str, int]:
    """What the run would be on, and its bytes."""
    if torch.cuda.is_available() and experiment.trainer.get("accelerator") != "cpu":
        found = torch.cuda.get_device_properties(0)
        return found.name, found.total_memory
    return "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

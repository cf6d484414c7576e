"""What an experiment's YAML may say. Defaults, units and ranges of the top level stand here and nowhere else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]+")
"""What becomes a folder name: no separators, so that no name leaves its folder."""
TAKEN = ("merged", "evaluation", "layout")
"""Folders that stand beside the specialties' own."""
MAX_SEED = 2**32 - 1
"""Largest seed that NumPy, and so `seed_everything`, takes."""


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be a folder.

    Raises:
        ValueError: it has characters other than letters, digits, '.', '_' and '-', or is '.' or '..'.
    """
    if not NAME_PATTERN.fullmatch(name) or set(name) == {"."}:
        raise ValueError(f"{what} {name!r} becomes a folder: only letters, digits, '.', '_' and '-' are allowed")


def check_specialty(name: str) -> None:
    """Refuse a name that cannot be a specialty's folder.

    Raises:
        ValueError: as `check_name`, or another folder of the experiment has the name.
    """
    check_name("specialties entry", name)
    if name in TAKEN:
        raise ValueError(f"specialties entry {name!r} is the name of another folder of the experiment: {TAKEN}")


@dataclass(frozen=True)
class Component:
    """A class and what it is built from; the class path is the registry."""

    class_path: str
    """Dotted path of an importable class, such as `datamodules.dermatology.DermatologyPatches`."""
    init_args: dict[str, Any] = field(default_factory=dict)
    """Fields of the class's nested `Config`, as plain data; a class without `Config` takes them as arguments."""


TIME_PATTERN = re.compile(r"(\d+(?:\.\d+)?)([smh])")
"""A span of time: a number and its unit."""
SECONDS = {"s": 1, "m": 60, "h": 3600}
"""Seconds in each unit."""


def seconds_of(span: str) -> float:
    """Seconds of a span such as 30s, 10m or 1.5h.

    Examples:
        >>> seconds_of("10m")
        600.0

    Raises:
        ValueError: it is none, or lasts no time.
    """
    match = TIME_PATTERN.fullmatch(span)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{span!r} is no span of time; write a number and its unit, such as 30s, 10m or 1.5h")
    return float(match[1]) * SECONDS[match[2]]


@dataclass(frozen=True)
class Fit:
    """What surrounds the steps of a run: validation, checkpoints, and which of them becomes the result."""

    val_every: int | str = 100
    """Batches between two validations, or a time such as `10m`; 0 leaves those at the start and the end."""
    val_max_new_tokens: int = 96
    """Limit of a validation answer in tokens; at least 1."""
    checkpoint_every_steps: int = 20
    """Optimiser steps between two checkpoints to go on from; at least 1."""
    checkpoint_every_minutes: float = 10.0
    """The longest time between two of them, and so the most work that a crash costs; above 0."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the result: those after the last step, or those of the best validation."""
    patience: int = 0
    """Validations in a row without a better accuracy that end the run; 0 lets it take all its steps."""

    def __post_init__(self) -> None:
        if isinstance(self.val_every, str):
            try:
                seconds_of(self.val_every)
            except ValueError as error:
                raise ValueError(f"val_every: {error}") from None
        elif self.val_every < 0:
            raise ValueError(f"val_every must be at least 0, got {self.val_every}")
        if self.val_max_new_tokens < 1:
            raise ValueError(f"val_max_new_tokens must be at least 1, got {self.val_max_new_tokens}")
        if self.checkpoint_every_steps < 1:
            raise ValueError(f"checkpoint_every_steps must be at least 1, got {self.checkpoint_every_steps}")
        if not self.checkpoint_every_minutes > 0:
            raise ValueError(f"checkpoint_every_minutes must be above 0, got {self.checkpoint_every_minutes}")
        if self.patience < 0:
            raise ValueError(f"patience must be at least 0, got {self.patience}")


@dataclass(frozen=True)
class Experiment:
    """The runs of one YAML: one per specialty, then what the callbacks make of them."""

    name: str
    """Folder under `runs_dir`; letters, digits, '.', '_' and '-'. A file that does not give it is called by its file
    name; it is never inherited through `extends`, so that two files never share a folder by accident."""
    model: Component
    """The vision-language family."""
    specialties: dict[str, Component]
    """Specialty name -> DataModule; at least one. `null` removes an inherited one."""
    module: Component | None = None
    """The LightningModule: the training objective. Without one nothing is trained, and the callbacks examine."""
    data: dict[str, Any] = field(default_factory=dict)
    """DataModule options that every specialty shares; a specialty's own init_args win."""
    requires: list[str] = field(default_factory=list)
    """Experiment files whose experts this one starts from; run first unless finished."""
    adapters: list[str] = field(default_factory=list)
    """Folders of adapters that are examined beside what the lineage left: `runs/x/pediatrics`, or any folder written by
    a merge, with or without its inner `adapter`. What an adapter grew from is found by its manifest."""
    callbacks: dict[str, Component] = field(default_factory=dict)
    """Free name -> callback. `null` removes an inherited one."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's Trainer."""
    fit: Fit = field(default_factory=Fit)
    """Validation and checkpoints of every run."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the frozen base weights; adapters, optimiser and logits stay fp32."""
    seed: int = 0
    """Seed of everything random; 0 to 2**32 - 1."""
    runs_dir: str = "runs"
    """Folder that holds the experiments."""
    only: list[str] = field(default_factory=list)
    """Specialties to train now; empty means all."""
    workers: int = 1
    """Specialties trained side by side, each in a process of its own, on a GPU of its own where there are several; at
    least 1."""
    threads: int = 1
    """CPU threads per process; at least 1."""
    feature_cache: str = ""
    """Folder that keeps picture features of frozen towers between runs; empty keeps them in memory only."""
    budget: float = 1.0
    """Factor on every max_steps; above 0."""
    overwrite: bool = False
    """Start anew although the folder holds another configuration's runs."""
    description: str = ""
    """One sentence for readers; not inherited through `extends`."""

    def __post_init__(self) -> None:
        self._check_names()
        if self.module is None and ("max_steps" in self.trainer or not self.callbacks):
            raise ValueError(
                "module is missing: without one nothing is trained, so that trainer.max_steps must be absent and "
                "callbacks must name what examines, such as callbacks.evaluate_experts.EvaluateExperts"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must lie in 0 to {MAX_SEED}, got {self.seed}")
        if not self.runs_dir:
            raise ValueError("runs_dir must not be empty; '.' is the working folder")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if not (self.budget > 0 and math.isfinite(self.budget)):
            raise ValueError(f"budget must be above 0 and finite, got {self.budget}")

    def _check_names(self) -> None:
        """Refuse names that cannot be folders or dotted keys, and specialties that are not there."""
        check_name("name", self.name)
        if not self.specialties:
            raise ValueError("specialties must name at least one specialty and its DataModule")
        for name in self.specialties:
            check_specialty(name)
        dotted = [name for name in (*self.specialties, *self.callbacks) if "." in name]
        if dotted:
            section = "specialties" if dotted[0] in self.specialties else "callbacks"
            raise ValueError(f"{section} are addressed by dotted keys, so {dotted[0]!r} must not have a dot")
        unknown = [name for name in self.only if name not in self.specialties]
        if unknown:
            raise ValueError(
                f"only names {unknown[0]!r}, which is not a specialty here ({', '.join(self.specialties)})"
            )

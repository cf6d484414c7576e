"""What an experiment's YAML may say. Defaults, units and ranges of the top level stand here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from configs.problems import did_you_mean
from guards.printable import shown
from guards.ranges import Ranged, above, at_least, between

LONGEST_NAME = 100
"""Characters of a folder's name."""
AGENT = "agent"
"""Folder, and name, of the one run of an experiment that trains over all specialties together."""
TAKEN = ("merged", "evaluation", "layout", "jobs", AGENT)
"""Folders that stand beside the specialties' own."""
MAX_SEED = 2**32 - 1
"""Largest seed that NumPy, and so `seed_everything`, takes."""


MODELS = ("lightning_modules.families.base.VisionLanguageFamily", "endpoints.endpoint.Endpoint")
"""What a model may be: loaded here, or asked over the network."""


@dataclass(frozen=True)
class Slot:
    """Beside a field, or the items of one: what the class that a YAML names there must be a subclass of."""

    interface: type | str | tuple[str, ...]
    """A class, or its dotted path where its room must not be imported; of several, a subclass of one."""


@dataclass(frozen=True)
class Function:
    """Beside a text that is a function's dotted path: what the function, called without arguments, must return."""

    returns: str
    """Its annotation, as the function's source spells it."""


@dataclass(frozen=True)
class Checked:
    """Beside a field: what reads more than the value itself, such as a file that it names."""

    faults: Callable[[Any], Iterable[str]]
    """All that is wrong with a value."""


class FolderName:
    """Beside a text that becomes a folder: no separators, so that no name leaves its folder."""

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a name; empty where nothing is."""
        right = re.fullmatch(r"[A-Za-z0-9._-]+", str(value)) and set(value) != {"."} and len(value) <= LONGEST_NAME
        if right:
            return ""
        allowed = f"only letters, digits, '.', '_' and '-' are allowed, and at most {LONGEST_NAME} of them"
        return f"{name} {shown(value)} becomes a folder: {allowed}"


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be a folder.

    Raises:
        ValueError: it has characters other than letters, digits, '.', '_' and '-', is '.' or '..', or is too long.
    """
    if fault := FolderName().fault(what, name):
        raise ValueError(fault)


def is_adapter(folder: Path) -> bool:
    """Whether a folder, or the folder `adapter` in it, has an adapter's manifest."""
    return any((folder / inner / "manifest.json").is_file() for inner in ("", "adapter"))


def adapter_faults(name: str) -> Iterator[str]:
    """What is wrong with a folder that should hold an adapter, before anything is computed for the others."""
    folder = Path(name)
    try:
        if is_adapter(folder):
            return
        beside = [str(path) for path in sorted(folder.parent.glob("*")) if is_adapter(path)]
        hint = did_you_mean(name, beside)
        if is_adapter(folder / "rejected"):
            hint = f"the gates rejected this merge; did you mean {str(folder / 'rejected')!r}?"
    except OSError as error:
        hint = error.strerror or ""
    message = f"{shown(name)} is no adapter folder: neither it nor an `adapter` in it holds manifest.json"
    yield f"{message}; {hint}" if hint else message


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
class Fit(Ranged):
    """What surrounds the steps of a run: validation, checkpoints, and which of them becomes the result."""

    val_every: Annotated[int | str, at_least(0)] = 100
    """Batches between two validations, or a time such as `10m`; 0 leaves those at the start and the end."""
    val_max_new_tokens: Annotated[int, at_least(1)] = 96
    """Limit of a validation answer in tokens."""
    checkpoint_every_steps: Annotated[int, at_least(1)] = 20
    """Optimiser steps between two checkpoints to go on from."""
    checkpoint_every_minutes: Annotated[float, above(0)] = 10.0
    """The longest time between two of them, and so the most work that a crash costs."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the result: those after the last step, or those of the best validation."""
    patience: Annotated[int, at_least(0)] = 0
    """Validations in a row without a better accuracy that end the run; 0 lets it take all its steps."""
    memory: Literal["as_set", "auto"] = "as_set"
    """`auto`: where a run would not fit its device, it gets `checkpoint_layers`, then smaller `micro_batch_tokens` and
    `rows_at_once`, by the estimate that `--dry-run` prints; these change no result beyond rounding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.val_every, str):
            try:
                seconds_of(self.val_every)
            except ValueError as error:
                raise ValueError(f"val_every: {error}") from None


@dataclass(frozen=True)
class Replay(Ranged):
    """Rows of another set that are mixed into every training step, so that what they taught is not forgotten."""

    data: Annotated[Component, Slot("datamodules.base.VQADataModule")]
    """The set, such as the one that the base was trained on; rows of its training split. It has options of its own:
    none of those under `data` of the experiment."""
    share: Annotated[float, between(0, 1, open_low=True, open_high=True)] = 0.1
    """The share of the rows of a step, in (0, 1), rounded to whole rows: at least one, and not all."""


@dataclass(frozen=True)
class Experiment(Ranged):
    """The runs of one YAML: one per specialty, then what the callbacks make of them."""

    name: Annotated[str, FolderName()]
    """Folder under `runs_dir`; letters, digits, '.', '_' and '-'. A file that does not give it is called by its file
    name; it is never inherited through `extends`, so that two files never share a folder by accident."""
    model: Annotated[Component, Slot(MODELS)]
    """The vision-language family; or, where nothing is trained, a model behind an endpoint."""
    specialties: dict[str, Annotated[Component, Slot("datamodules.base.VQADataModule")]]
    """Specialty name -> DataModule; at least one. `null` removes an inherited one."""
    module: Annotated[Component, Slot("lightning_modules.stage.Stage")] | None = None
    """The LightningModule: the training objective. Without one nothing is trained, and the callbacks examine."""
    data: dict[str, Any] = field(default_factory=dict)
    """DataModule options that every specialty shares; a specialty's own init_args win."""
    train: Literal["each", "mixed", "sequential"] = "each"
    """What a run is over. `each`: one specialty, of which it makes an expert. `mixed`: all of them, for one agent; a
    step takes as much of each. `sequential`: one agent too, for as many steps on one specialty after the other, in
    their order here; the schedule begins anew with each."""
    replay: Replay | None = None
    """Rows of another set in every training step, for modules that imitate rows; None trains on the specialty alone."""
    requires: list[str] = field(default_factory=list)
    """Experiment files whose experts this one starts from; run first unless finished."""
    adapters: list[Annotated[str, Checked(adapter_faults)]] = field(default_factory=list)
    """Folders of adapters that are examined beside what the lineage left: `runs/x/pediatrics`, or any folder written by
    a merge, with or without its inner `adapter`. What an adapter grew from is found by its manifest."""
    callbacks: dict[str, Annotated[Component, Slot("callbacks.experiment_callback.ExperimentCallback")]] = field(
        default_factory=dict
    )
    """Free name -> callback. `null` removes an inherited one."""
    logger: list[Annotated[Component, Slot("lightning.pytorch.loggers.logger.Logger")]] = field(default_factory=list)
    """Loggers besides TensorBoard, such as `{class_path: lightning.pytorch.loggers.CSVLogger}`; `trust` must name
    lightning. Those of W&B and MLflow need their packages. Names and folder are the run's where init_args say none."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's Trainer; see `configs.trainer`."""
    fit: Fit = field(default_factory=Fit)
    """Validation and checkpoints of every run."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the frozen base weights; adapters, optimiser and logits stay fp32."""
    seed: Annotated[int, between(0, MAX_SEED)] = 0
    """Seed of everything random."""
    runs_dir: str = "runs"
    """Folder that holds the experiments."""
    only: list[str] = field(default_factory=list)
    """Specialties to train now; empty means all."""
    launcher: Annotated[Component, Slot("experiment.launchers.interface.Launcher")] | None = None
    """What starts the work on other machines, as jobs; without one it is done here."""
    workers: Annotated[int, at_least(1)] = 1
    """Processes at once, each on a GPU of its own where there are several: specialties that are trained, with what they
    stand on; cells that are examined; and beside the training of an agent, what it is made from is examined."""
    threads: Annotated[int, at_least(1)] = 1
    """CPU threads per process."""
    feature_cache: str = ""
    """Folder that keeps picture features of frozen towers between runs; empty keeps them in memory only."""
    budget: Annotated[float, above(0)] = 1.0
    """Factor on every max_steps."""
    overwrite: bool = False
    """Start anew although the folder holds another configuration's runs."""
    description: str = ""
    """One sentence for readers; not inherited through `extends`."""
    trust: list[str] = field(default_factory=list)
    """Top-level packages besides this project's whose classes and functions may be named, and so run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_names()
        if self.module is None and ("max_steps" in self.trainer or not self.callbacks):
            raise ValueError(
                "module is missing: without one nothing is trained, so that trainer.max_steps must be absent and "
                "callbacks must name what examines, such as callbacks.evaluate_experts.EvaluateExperts"
            )
        if self.module is None and self.train != "each":
            raise ValueError(f"train: {self.train} says what a run is over, and without a module nothing is trained")
        if not self.runs_dir:
            raise ValueError("runs_dir must not be empty; '.' is the working folder")

    def _check_names(self) -> None:
        """Refuse names that cannot be folders or dotted keys, and specialties that are not there."""
        if not self.specialties:
            raise ValueError("specialties must name at least one specialty and its DataModule")
        for name in self.specialties:
            check_name("specialties entry", name)
            if name in TAKEN:
                raise ValueError(f"specialties entry {name!r} is the name of another folder of the experiment: {TAKEN}")
        dotted = [name for name in (*self.specialties, *self.callbacks) if "." in name]
        if dotted:
            section = "specialties" if dotted[0] in self.specialties else "callbacks"
            raise ValueError(f"{section} are addressed by dotted keys, so {dotted[0]!r} must not have a dot")
        unknown = [name for name in self.only if name not in self.specialties]
        if unknown:
            raise ValueError(
                f"only names {unknown[0]!r}, which is not a specialty here ({', '.join(self.specialties)})"
            )

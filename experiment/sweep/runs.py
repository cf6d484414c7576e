"""The runs of a sweep: each is one `train.py --config FILE key=value ...`, in a folder of its own.

<runs_dir>/<name>/
sweep.json                          what was fixed before the first run
shared/<required>/                  required experiments that state their seed: once for all
seed<S>/<required>/                 the others: once per seed, for all arms
seed<S>/<arm>/                      an arm
tuning/seed<T>/<arm>-<point>/       a combination that was tried, examined on validation questions
report.md, report.png, report.csv, report.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.load import Loaded, load
from configs.show import flow
from configs.tree import COMMAND_LINE
from experiment.sweep.reading import SweepFile

EVALUATE = "callbacks.evaluate_experts.EvaluateExperts"
RESERVED = ("name", "seed", "runs_dir", "overwrite", "only", "launcher")
"""Settings of an arm's experiment that are the sweep's own."""
Kind = Literal["required", "tuning", "arm"]


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        label: unique in the sweep; a file's name.
        kind: what it is for.
        arm: whose; of a required experiment its name.
        seed: None for what is made once for all seeds.
        config: the experiment file.
        arguments: of the command line.
        loaded: its experiment as these make it.
        point: number of the combination that is tried; None where none is.
        level: required experiments of a level stand on those below it alone.
    """

    label: str
    kind: Kind
    arm: str
    seed: int | None
    config: Path
    arguments: tuple[str, ...]
    loaded: Loaded
    point: int | None = None
    level: int = 0

    @property
    def folder(self) -> Path:
        """Where its experiment lies."""
        return Path(self.loaded.experiment.runs_dir) / self.loaded.experiment.name


def settings_of(values: Mapping[str, Any]) -> list[str]:
    """Settings as a command line has them."""
    return [f"{key}={flow(value)}" for key, value in values.items()]


@dataclass(frozen=True)
class Runs:
    """Makes the runs of a sweep from its file.

    Attributes:
        file: the sweep.
        known: experiments that were read already, by file and arguments.
    """

    file: SweepFile
    known: dict[tuple, Loaded] = field(default_factory=dict)

    def load(self, arm: str, arguments: Sequence[str]) -> Loaded:
        """An arm's experiment.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        key = (self.file.config_of(arm), *arguments)
        if key not in self.known:
            self.known[key] = load(key[0], arguments)
        return self.known[key]

    def bare(self, arm: str) -> Loaded:
        """An arm's experiment before it is examined or tuned, at the first seed; errors as of `load`."""
        seed = self.file.sweep.seeds[0]
        return self.load(arm, [*self.places(arm, seed, f"seed{seed}"), *self.set_in(arm, {})])

    def places(self, name: str, seed: int, folder: str) -> list[str]:
        """The settings that say where a run lies, and by which seed."""
        return [f"seed={seed}", f"runs_dir={self.file.root / folder}", f"name={name}", "launcher=null", "workers=1"]

    def arm(self, arm: str, seed: int, point: Mapping[str, Any] | None = None) -> Run:
        """An arm at a seed.

        Args:
            arm: which.
            seed: which.
            point: what tuning chose, where it was.
        """
        own = self.places(arm, seed, f"seed{seed}")
        chosen = self.examined(arm, "test", self.file.sweep.questions)
        return self.run(f"arm-{arm}-seed{seed}", "arm", arm, seed, [*own, *self.set_in(arm, point or {}), *chosen])

    def tuning(self, arm: str, point: int, seed: int) -> Run:
        """One combination of an arm at a tuning seed."""
        own = self.places(f"{arm}-{point}", seed, f"tuning/seed{seed}")
        values = self.file.sweep.points(arm)[point]
        chosen = self.examined(arm, "val", self.file.sweep.tuning.questions)
        given = [*own, *self.set_in(arm, values), *chosen]
        return self.run(f"tuning-{arm}-{point}-seed{seed}", "tuning", arm, seed, given, point)

    def run(self, label: str, kind: Kind, arm: str, seed: int, given: list[str], point: int | None = None) -> Run:
        """A run, with what is made once for all seeds in the folder for that; errors as of `load`."""
        once = [called for called, one in self.bare(arm).beneath.items() if not follows_seed(one)]
        whole = (*given, *(f"{called}:runs_dir={self.file.root / 'shared'}" for called in once))
        return Run(label, kind, arm, seed, self.file.config_of(arm), whole, self.load(arm, whole), point)

    def set_in(self, arm: str, point: Mapping[str, Any]) -> list[str]:
        """What the sweep sets in an arm."""
        return settings_of({**self.file.sweep.settings_of(arm), **point})

    def examined(self, arm: str, split: str, questions: int) -> list[str]:
        """The settings of an arm's examination."""
        key = f"callbacks.{examiner(self.bare(arm))}.init_args"
        return [f"{key}.split={split}", f"{key}.n={questions}"]

    def tried_of(self, arm: str) -> list[Run]:
        """Every run of an arm's tuning; errors as of `load`."""
        sweep = self.file.sweep
        seeds = [] if sweep.tuning is None else sweep.tuning.seeds
        return [self.tuning(arm, point, seed) for point in range(len(sweep.points(arm))) for seed in seeds]

    def required(self) -> list[Run]:
        """What all arms stand on, each once, lowest first.

        An arm that differs there from another in the same folder is refused by `experiment.sweep.checks`.
        """
        sweep = self.file.sweep
        found: dict[Path, Run] = {}
        for arm in sweep.arms:
            firsts = [self.arm(arm, seed) for seed in sweep.seeds]
            tried = [self.tuning(arm, 0, seed) for seed in sweep.tuning.seeds] if sweep.points(arm) else []
            for one in (*firsts, *tried):
                for member in one.loaded.beneath.values():
                    made = required_run(member, one.seed if follows_seed(member) else None)
                    found.setdefault(made.folder, made)
        return sorted(found.values(), key=lambda run: run.level)


def examiner(loaded: Loaded) -> str:
    """Name of the callback that examines an experiment; empty where there is none."""
    callbacks = loaded.experiment.callbacks.items()
    return next((name for name, one in callbacks if one is not None and one.class_path == EVALUATE), "")


def follows_seed(one: Loaded) -> bool:
    """Whether a required experiment changes with the seed of the arm, by its own or by one beneath."""
    return one.origins.get("seed") == COMMAND_LINE or any(map(follows_seed, one.required))


def required_run(member: Loaded, seed: int | None) -> Run:
    """A required experiment as a run of its own, with all its specialties: whoever stands on it examines them all."""
    name = member.experiment.name
    label = f"required-{name}" + ("" if seed is None else f"-seed{seed}")
    return Run(label, "required", name, seed, member.path, member.arguments, member, level=height(member))


def height(one: Loaded) -> int:
    """How many experiments lie beneath each other under one."""
    return 1 + max(map(height, one.required), default=-1)

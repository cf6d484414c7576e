"""What a sweep's YAML says: a question, the arms that are compared, and by what it is decided, all of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Annotated, Any

from configs.problems import did_you_mean
from configs.schema import MAX_SEED, Component, FolderName, Slot, check_name
from evaluation.scorers import SCORERS
from guards.printable import shown
from guards.ranges import Matches, Ranged, above, at_least, between

EXPERT = "expert"
"""Each specialty answered by the arm's own expert of it."""
MOST_POINTS = 200
"""Points of one arm's grid; nobody tunes by more, and a typo does not ask for millions."""


@dataclass(frozen=True)
class Arm(Ranged):
    """One of the methods that are compared."""

    config: str = ""
    """Experiment file; empty takes that of the sweep."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is set over it, as on the command line: dotted key, or NAME:key of a required experiment, and value."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Settings that are tuned and the values that are tried, in place of the grid that all arms share."""


@dataclass(frozen=True)
class Tuning(Ranged):
    """How each arm's settings are chosen: all combinations of a grid, by the validation questions, on other seeds."""

    seeds: list[Annotated[int, between(0, MAX_SEED)]]
    """Seeds that each combination is trained with; none of the sweep's own."""
    questions: Annotated[int, at_least(1)]
    """Validation questions per specialty."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Setting -> values to try, for every arm that has no grid of its own."""


@dataclass(frozen=True)
class Primary(Ranged):
    """The one comparison that the sweep is made for, and what counts in it. All tables count the same."""

    arm: str
    """The arm in question."""
    against: str
    """What it is compared with."""
    answers_of: Annotated[
        str,
        Matches(
            r"expert|agent|base|merged/[A-Za-z0-9._-]+", "expert, agent, base or merged/METHOD, a row of the matrix"
        ),
    ] = EXPERT
    """Who answers: each specialty's own expert, or one agent for all, trained or merged."""
    scorer: str = ""
    """By which reading answers count; empty takes what each protocol counts by, of our own the strict one."""
    guideline: str = "neutral"
    """Under which prompt."""
    specialties: list[str] = field(default_factory=list)
    """Columns that count, each once; empty takes all."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Tag of a question -> values of which it must have one; empty takes all questions."""
    confidence: Annotated[float, between(0.5, 0.9999)] = 0.95
    """Coverage of all intervals."""
    spread: Annotated[float, above(0)] = 0.04
    """Standard deviation of the difference between seeds that the plan reckons with, as a fraction; assumed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arm == self.against:
            raise ValueError(f"against must name another arm than arm, got {shown(self.against)} twice")
        if self.scorer and self.scorer not in SCORERS:
            raise ValueError(f"scorer must be empty or one of {', '.join(SCORERS)}, got {shown(self.scorer)}")


@dataclass(frozen=True)
class Sweep(Ranged):
    """Arms x seeds of one question."""

    name: Annotated[str, FolderName()]
    """Folder under `runs_dir`; the file's name if not given."""
    question: str
    """What is asked, in a sentence."""
    arms: dict[str, Arm]
    """Name -> what it is; at least two."""
    seeds: list[Annotated[int, between(0, MAX_SEED)]]
    """Seeds of every arm; at least two, as the luck of a seed shows from two on."""
    primary: Primary
    """What is decided."""
    questions: Annotated[int, at_least(1)]
    """Test questions per specialty."""
    config: str = ""
    """Experiment file of all arms that name none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is set in every arm; an arm's own settings go over it."""
    shared: list[str] = field(default_factory=list)
    """Required experiments that every arm must stand on, the same for all: made once per seed, or once for all seeds
    where their file states its seed."""
    tuning: Tuning | None = None
    """How settings are chosen; without it arms are taken as they are."""
    runs_dir: str = "runs"
    """Folder that holds sweeps."""
    workers: Annotated[int, at_least(1)] = 1
    """Runs side by side on this machine."""
    launcher: Annotated[Component, Slot("experiment.launchers.interface.Launcher")] | None = None
    """What starts the runs on other machines; without one they are done here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arms(self)
        check_seeds(self)
        check_grids(self)

    def settings_of(self, arm: str) -> dict[str, Any]:
        """Everything that is set in an arm, before tuning."""
        return {**self.settings, **self.arms[arm].settings}

    def grid_of(self, arm: str) -> dict[str, list[Any]]:
        """What is tuned in an arm."""
        return {} if self.tuning is None else self.arms[arm].grid or self.tuning.grid

    def points(self, arm: str) -> list[dict[str, Any]]:
        """The combinations that are tried in an arm, in the order of the file; none where nothing is tuned."""
        grid = self.grid_of(arm)
        return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []


def check_arms(sweep: Sweep) -> None:
    """Refuse arms that cannot be compared or stored.

    Raises:
        ValueError: says which.
    """
    for name in sweep.arms:
        check_name("arms entry", name)
        if "." in name:
            raise ValueError(f"arms are addressed by dotted keys, so {name!r} must not have a dot")
    if len(sweep.arms) < 2:
        raise ValueError(f"arms must be at least two, got {', '.join(sweep.arms) or 'none'}")
    for key in ("arm", "against"):
        name = getattr(sweep.primary, key)
        if name not in sweep.arms:
            near = did_you_mean(name, sweep.arms)
            message = f"primary.{key} must be one of the arms {', '.join(sweep.arms)}, got {shown(name)}"
            raise ValueError(f"{message}; {near}" if near else message)
    without = [name for name, arm in sweep.arms.items() if not (arm.config or sweep.config)]
    if without:
        raise ValueError(f"config is missing: arm {without[0]!r} names no experiment file, and the sweep none for all")
    if not sweep.runs_dir:
        raise ValueError("runs_dir must not be empty; '.' is the working folder")


def check_seeds(sweep: Sweep) -> None:
    """Refuse seeds that are too few, given twice, or used for tuning too.

    Raises:
        ValueError: says which.
    """
    tuned = [] if sweep.tuning is None else sweep.tuning.seeds
    for key, seeds, least in (("seeds", sweep.seeds, 2), ("tuning.seeds", tuned, int(sweep.tuning is not None))):
        if len(seeds) < least:
            raise ValueError(f"{key} must be at least {least}, got {len(seeds)}")
        if again := [seed for i, seed in enumerate(seeds) if seed in seeds[:i]]:
            raise ValueError(f"{key} names {again[0]} twice; every seed counts once")
    if both := sorted(set(sweep.seeds) & set(tuned)):
        raise ValueError(
            f"tuning.seeds must be none of the sweep's own, got {both[0]} in both: settings that were chosen on a seed "
            "look better on it than they are"
        )


def check_grids(sweep: Sweep) -> None:
    """Refuse grids that give one arm more tries than another.

    Raises:
        ValueError: says which.
    """
    if sweep.tuning is None:
        if given := [name for name, arm in sweep.arms.items() if arm.grid]:
            raise ValueError(f"tuning is missing: arm {given[0]!r} has a grid; give tuning.seeds and tuning.questions")
        return
    for name in sweep.arms:
        for key, values in sweep.grid_of(name).items():
            if not values or any(value in values[:i] for i, value in enumerate(values)):
                raise ValueError(f"grid of arm {name!r}: {key} must have values, none of them twice, got {values}")
    counts = {name: prod(map(len, sweep.grid_of(name).values())) for name in sweep.arms}
    if max(counts.values()) > MOST_POINTS:
        raise ValueError(f"grid: at most {MOST_POINTS} combinations per arm, got {max(counts.values())}")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            f"grid: every arm must try as many combinations, got {told}; an arm that is tried more often looks better. "
            "An arm without that setting takes a grid of its own with as many values"
        )

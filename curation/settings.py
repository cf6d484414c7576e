"""What a curation's YAML may say, and reading it: every problem at once, before anything is asked or opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from configs.check import Checker, as_plain
from configs.load import find, read
from configs.problems import ConfigError, Problem
from configs.schema import Component, Slot, check_name
from guards.ranges import Ranged, at_least, between
from lightning_modules.parts import GuidelineNames

Teacher = Annotated[Component, Slot("curation.teachers.Teacher")]
Data = Annotated[Component, Slot("datamodules.base.VQADataModule")]
UNTOLD = ("out", "replies", "overwrite", "trust", "launcher")
"""Settings that decide nothing of what the result holds."""


@dataclass(frozen=True)
class Pool:
    """A set whose training questions are candidates."""

    data: Data
    """The DataModule; sets that are for examination only are refused."""
    source: str
    """Where the set is from, for provenance and datasheet: its name and version, an address."""
    licence: str
    """The licence of questions and pictures, as the row will state it."""

    def __post_init__(self) -> None:
        if not self.source.strip() or not self.licence.strip():
            raise ValueError("source and licence must be stated: every row carries them")


@dataclass(frozen=True)
class Settings(Ranged):
    """One curated set: where its questions are from, who teaches, and what is kept."""

    out: str
    """Folder of the result; replaced as a whole when the work is done."""
    pools: dict[str, Pool]
    """Name -> pool; the name begins the rows' ids."""
    teacher: Teacher
    """Writes the traces: `curation.endpoint.Endpoint` or `curation.local.LocalModel`."""
    guidelines: GuidelineNames = ("differential", "intuitive", "analytical", "bayesian")
    """One trace under each, per question."""
    rules: str = "curation/specialties.yaml"
    """File of keyword and tag rules, in the working folder or in configs/."""
    classifier: Teacher | None = None
    """A teacher that names each question's specialty; None leaves it to the rules."""
    decide: Literal["rules", "classifier"] = "rules"
    """Whose specialty counts; the other one is the audit."""
    test_sets: dict[str, Data] = field(default_factory=dict)
    """DataModules whose test and validation questions and pictures must not be in the result; those of the pools
    themselves are always kept out."""
    base: Teacher | None = None
    """The model that is to be trained, for the pass rate; None leaves this filter out."""
    samples: Annotated[int, at_least(1)] = 16
    """k, answers of the base per question to the neutral prompt; at least 1."""
    pass_rate: Annotated[tuple[float, float], between(0, 1)] = (0.05, 0.95)
    """Questions whose share of right answers lies in it, ends included, are kept; in [0, 1]."""
    draws: Annotated[int, at_least(1)] = 1
    """Attempts of the teacher per guideline, until one passes; at least 1."""
    min_traces: Annotated[int, at_least(1)] = 1
    """A question is kept if at least so many guidelines have a trace that passes; 1 to the number of guidelines."""
    min_adherence: Annotated[float, between(0, 1)] = 0.5
    """Traces that follow their guideline less are left out; in [0, 1]."""
    max_trace_characters: Annotated[int, at_least(1)] = 8000
    """Longer traces are left out; at least 1."""
    audit_rows: Annotated[int, at_least(0)] = 20
    """Questions per specialty in audit.csv, for a person to look at; at least 0."""
    limit: Annotated[int, at_least(0)] = 0
    """Candidates per pool, the first in hash order; 0 takes all."""
    replies: str = ""
    """Folder that keeps every reply; empty is `out` with `.replies` behind it."""
    overwrite: bool = False
    """Replace a result that was made with other settings."""
    launcher: Annotated[Component, Slot("experiment.launchers.interface.Launcher")] | None = None
    """What starts the work on other machines, as jobs; without one it is done here."""
    trust: list[str] = field(default_factory=list)
    """Top-level packages besides this project's whose DataModules and teachers may be named, and so run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out or Path(self.out).resolve() in (Path.cwd().resolve(), Path(Path.cwd().anchor)):
            raise ValueError(f"out must be a folder of its own, got {self.out!r}: it is replaced as a whole")
        if self.reply_folder.resolve().is_relative_to(Path(self.out).resolve()):
            raise ValueError(f"replies must not lie in out, which is replaced as a whole; got {self.replies!r}")
        if not self.pools:
            raise ValueError("pools must name at least one set")
        for name in self.pools:
            check_name("pools entry", name)
        if not self.guidelines or len(set(self.guidelines)) != len(self.guidelines) or "neutral" in self.guidelines:
            raise ValueError(f"guidelines must be distinct names other than neutral, got {self.guidelines}")
        if self.decide == "classifier" and self.classifier is None:
            raise ValueError("decide is classifier, but no classifier is given")
        if self.pass_rate[0] > self.pass_rate[1]:
            raise ValueError(f"pass_rate must be [low, high] with low <= high, got {list(self.pass_rate)}")
        if self.min_traces > len(self.guidelines):
            raise ValueError(f"min_traces must lie in 1 to {len(self.guidelines)} (guidelines), got {self.min_traces}")

    @property
    def reply_folder(self) -> Path:
        """Where replies are kept."""
        return Path(self.replies or f"{self.out.rstrip('/')}.replies")

    @property
    def rule_file(self) -> Path:
        """The file of the rules.

        Raises:
            ConfigError: there is none.
        """
        problems: list[Problem] = []
        path = find(self.rules, Path.cwd(), "settings", "rules", problems)
        if path is None:
            raise ConfigError(problems)
        return path


def load_settings(name: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a curation's file and lay `key=value` over it.

    Args:
        name: a path, or a file below configs/.
        overrides: dotted `key=value` arguments.

    Raises:
        ConfigError: everything that is wrong with file and command line.
    """
    return read(Settings, name, overrides)


def resolved(settings: Settings) -> dict[str, Any]:
    """The settings as plain data with every default filled in, as the result states them.

    Of absolute paths only the last name is told, with a hash that tells them apart: they are this machine's.
    """
    whole = Checker(lambda *fault: None, settings.trust).with_defaults(as_plain(settings))
    return placeless({key: value for key, value in whole.items() if key not in UNTOLD})


def placeless(value: Any) -> Any:
    """Plain data without absolute paths, also behind the sign of a "key=value"."""
    if isinstance(value, dict):
        return {key: placeless(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [placeless(entry) for entry in value]
    head, sign, path = value.rpartition("=") if isinstance(value, str) else ("", "", "")
    if not Path(path).is_absolute():
        return value
    return f"{head}{sign}{Path(path).name} ({hashlib.sha256(path.encode()).hexdigest()[:8]})"


def absolute_roots(settings: Settings) -> list[str]:
    """Roots of pools that are absolute paths, the longest first."""
    roots = {Path(str(pool.data.init_args.get("root", ""))) for pool in settings.pools.values()}
    return sorted((str(root) for root in roots if root.is_absolute()), key=len, reverse=True)

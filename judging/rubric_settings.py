"""What the YAML of a rubric's judge may say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from configs.load import read
from guards.ranges import Ranged, at_least
from judging.settings import JudgeSlot


@dataclass(frozen=True)
class RubricSettings(Ranged):
    """One judge on the answers of one examination."""

    run: str
    """Folder of an experiment that has been examined, with its data where they were."""
    out: str
    """Folder of the replies and the report; one judge, rubric and choice of answers each. The same command goes on."""
    judge: JudgeSlot
    """`judging.endpoint.EndpointJudge`, `judging.local.LocalJudge`, or your own."""
    rubric: str = "reasons"
    """A name in configs/rubrics, or the path of a .yaml."""
    models: tuple[str, ...] = ("*",)
    """Patterns of row names."""
    specialties: tuple[str, ...] = ()
    """Columns; empty takes all."""
    n: Annotated[int, at_least(0)] = 0
    """Questions of each specialty, the same of every model, by a hash of their ids; 0 takes all."""
    trust: list[str] = field(default_factory=list)
    """Top-level packages besides this project's whose judges and data sets may be named, and so run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out or Path(self.out).resolve() in (Path.cwd().resolve(), Path(self.run).resolve()):
            raise ValueError(f"out must be a folder of its own, got {self.out!r}")


def load_rubric_settings(name: str, overrides: Sequence[str] = ()) -> RubricSettings:
    """Read a file and lay `key=value` over it.

    Raises:
        ConfigError: everything that is wrong with file and command line.
    """
    return read(RubricSettings, name, overrides)

"""What a judging's YAML may say, and reading it: every problem at once, before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from configs.load import read
from configs.schema import Component, Slot
from guards.ranges import Ranged
from judging.messages import Mode

JudgeSlot = Annotated[Component, Slot("judging.judge.Judge")]


@dataclass(frozen=True)
class Settings(Ranged):
    """One judge on one release, or on made pairs."""

    out: str
    """Folder of the replies; one judge, mode and wording each. The same command goes on where it stopped."""
    judge: JudgeSlot
    """A class of `judging.heuristics`, `judging.local.LocalJudge`, `judging.trained.TrainedJudge`,
    `judging.endpoint.EndpointJudge`, or your own."""
    data: str = ""
    """Folder of the release; see `judging.release`."""
    pairs: Annotated[Component, Slot("datamodules.base.VQADataModule")] | None = None
    """In place of a release: a set of graded answers, two to each question, such as
    `datamodules.phantoms.pairs.PhantomPairs`; its test split is judged."""
    mode: Mode = "pair"
    """`pair` is the release's protocol; `score` grades each answer alone; `batch` asks for an order."""
    orders: Literal["both", "given"] = "both"
    """Show the answers in the order given, which alone the release's figures count, and swapped, or only as given."""
    instruction: str = ""
    """A UTF-8 file with other words for the judge, taken as they stand; empty takes ours."""
    thinking: bool = False
    """Allow reasoning before the verdicts; a sentence of our instruction."""
    organs: tuple[str, ...] = ()
    """Organs to judge; empty takes all 13."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """Refuse a release with rows that cannot be used, or leave out their cases and say so."""
    allowed_roots: tuple[str, ...] = ()
    """Further folders into which symbolic links below `data` may lead."""
    trust: list[str] = field(default_factory=list)
    """Top-level packages besides this project's whose judges may be named, and so run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out or Path(self.out).resolve() == Path.cwd().resolve():
            raise ValueError(f"out must be a folder of its own, got {self.out!r}")
        if bool(self.data) == (self.pairs is not None):
            raise ValueError("name either data, the folder of a release, or pairs, a set of graded answers; not both")
        if self.pairs is not None and self.organs:
            raise ValueError("organs are those of a release; pairs have none")
        if self.instruction and self.thinking:
            raise ValueError("thinking is a sentence of our instruction; put your own into the instruction file")


def load_settings(name: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a judging's file and lay `key=value` over it.

    Args:
        name: a path, or a file below configs/.
        overrides: dotted `key=value` arguments.

    Raises:
        ConfigError: everything that is wrong with file and command line.
    """
    return read(Settings, name, overrides)

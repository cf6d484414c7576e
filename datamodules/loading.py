"""What training takes from a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from datamodules.batch import ImageSource


@dataclass(frozen=True)
class Feed:
    """What a stage asks for.

    Attributes:
        kind: rows to imitate, or questions to roll out.
        size: items per step over all devices; 0 takes the data set's batch_size.
        guidelines: whose traces are taken; None takes all.
        spare: further distinct questions per step.
        read_picture: decodes and preprocesses one picture.
    """

    kind: Literal["rows", "questions"]
    size: int = 0
    guidelines: frozenset[str] | None = None
    spare: int = 0
    read_picture: Callable[[ImageSource], tuple[str, Any]] | None = None

"""Judges that look at nothing but length, place or chance: what a real one has to beat. They judge pairs."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from judging.cases import DIMENSIONS, SIDES, Case
from judging.judge import Judge, Reply, Request
from judging.messages import Mode


class Heuristic(Judge):
    """A rule that names a side for each dimension, in the form that judges are asked for."""

    modes: ClassVar[Sequence[Mode]] = ("pair",)
    sees: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config | None = None) -> None:
        """Keep the settings."""
        self.config = config if config is not None else self.Config()

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return {"judge": type(self).__name__}

    @override
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        for request in requests:
            yield request, Reply(json.dumps({name: self.side(request, name) for name in DIMENSIONS}))

    @abstractmethod
    def side(self, request: Request, dimension: str) -> str:
        """The side that wins, as shown."""


class LongerAnswer(Heuristic):
    """The answer of more characters wins; of equally long ones the first shown."""

    @override
    def side(self, request: Request, dimension: str) -> str:
        first, second = map(len, request.answers)
        return SIDES[second > first]


class FirstAnswer(Heuristic):
    """The answer that is shown first wins."""

    @override
    def side(self, request: Request, dimension: str) -> str:
        return SIDES[0]


class Random(Heuristic):
    """A fair coin per message and dimension."""

    @dataclass(frozen=True)
    class Config:
        """Which coins."""

        seed: int = 0
        """The seed of the draws."""

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return {**super().identity, "seed": self.config.seed}

    @override
    def side(self, request: Request, dimension: str) -> str:
        drawn = "\x1f".join(("judge", str(self.config.seed), request.prompt, dimension)).encode()
        return SIDES[hashlib.sha256(drawn).digest()[0] % 2]


class Majority(Heuristic):
    """The letter that physicians prefer more often, per dimension, whatever is shown.

    It has seen the truth of the very cases that it is scored on: the best that a constant reply could do. In the
    swapped order the same letter names the other answer.
    """

    letters: Mapping[str, str] = dict.fromkeys(DIMENSIONS, SIDES[0])

    @override
    def study(self, cases: Sequence[Case]) -> None:
        counts = {name: Counter(case.truth.get(name) for case in cases) for name in DIMENSIONS}
        self.letters = {name: max(SIDES, key=lambda side, held=held: held[side]) for name, held in counts.items()}

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return {**super().identity, "letters": self.letters}

    @override
    def side(self, request: Request, dimension: str) -> str:
        return self.letters[dimension]

"""What a teacher is: it is put a question under an instruction."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from datamodules.batch import Example
from datamodules.prompts import VERSION
from endpoints.answerer import Answerer


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a teacher.

    Attributes:
        row: id of the pool's row it is about, for messages.
        example: question, options and pictures.
        pictures: hash of each picture's pixels.
        instruction: ends the prompt; empty for the neutral prompt.
        draw: counts repeated samples of the same prompt.
    """

    row: str
    example: Example
    pictures: tuple[str, ...]
    instruction: str = ""
    draw: int = 0


class Teacher(Answerer[Request]):
    """Answers requests; what it answers is a function of its identity and the request alone, as far as it can be."""

    on_device: bool = True
    """Whether it computes here, so that a job of it wants a card."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that replies depend on besides the request, as JSON: goes into keys and provenance; holds no secret."""

    @abstractmethod
    def prompt(self, request: Request) -> str:
        """The words that are put to the teacher, pictures apart."""

    @override
    def key(self, request: Request) -> str:
        content = [self.identity, VERSION, self.prompt(request), list(request.pictures), request.draw]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @override
    def note(self, request: Request) -> Mapping[str, Any]:
        told = {"row": request.row, "teacher": dict(self.identity), "prompt": self.prompt(request)}
        return {**told, "draw": request.draw}

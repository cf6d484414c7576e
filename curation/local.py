"""A teacher, or the base of the pass rate, that runs here: an experiment's base with adapters on top."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import override

from answering.decoding import Decoding
from artifacts.base_files import is_base_complete
from curation.teachers import Request, Teacher
from datamodules.prompts import prompt_text
from endpoints.answerer import Heard, UnusableError
from guards.ranges import Ranged, at_least


class LocalModel(Teacher):
    """Samples from a policy; every reply has a random stream of its own and does not depend on what else is asked."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Which model, and how it is sampled."""

        config: str
        """Experiment file whose model and base are used, as `train.py --config` takes it."""
        overrides: tuple[str, ...] = ()
        """Dotted `key=value` settings of that file."""
        adapters: tuple[str, ...] = ()
        """Folders of adapters that act on the base, summed; none means the bare base."""
        temperature: Annotated[float, at_least(0)] = 1.0
        """The temperature of sampling, above 0; 0 takes the most likely token at every draw."""
        max_new_tokens: Annotated[int, at_least(1)] = 96
        """Limit of a reply in tokens; at least 1. Replies that are cut off there count as unknown."""
        rows_at_once: Annotated[int, at_least(1)] = 128
        """Replies decoded together; at least 1. Changes no reply beyond rounding."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; the model is loaded when it is first needed."""
        self.config = config

    @cached_property
    def model(self) -> Any:
        """The live model: an `answering.live_model.LiveModel`.

        Raises:
            UnusableError: the base is not trained yet, or an adapter is missing.
        """
        from experiment.live_model import live_model  # torch, which a wrong command need not wait for

        model = live_model(self.config.config, self.config.overrides)
        base = model.context.base_folder
        if base is not None and not is_base_complete(base):
            raise UnusableError(f"{base}: no trained base; run `python train.py --config {self.config.config}` first")
        for folder in self.config.adapters:
            if not (Path(folder) / "manifest.json").is_file():
                raise UnusableError(f"adapters: {folder!r} holds no finished adapter (no manifest.json)")
        return model

    @cached_property
    def _identity(self) -> dict[str, Any]:
        from artifacts.adapter_files import adapter_sha256

        return {
            "teacher": "local",
            "model": self.model.fingerprint,
            "adapters": [adapter_sha256(Path(folder)) for folder in self.config.adapters],
            "temperature": self.config.temperature,
            "max_new_tokens": self.config.max_new_tokens,
        }

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @override
    def prompt(self, request: Request) -> str:
        return prompt_text(request.example, request.instruction)

    @override
    def most_tokens(self, request: Request) -> int:
        return len(self.prompt(request).encode()) + self.config.max_new_tokens

    @override
    def answer(self, requests: Sequence[Request], take: Callable[[Heard | None], bool]) -> None:
        with self.model.acting([Path(folder) for folder in self.config.adapters]) as policy:
            for start in range(0, len(requests), self.config.rows_at_once):
                part = requests[start : start + self.config.rows_at_once]
                answers = [take(heard) for heard in self.sampled(policy, part)]
                if not all(answers):
                    return

    def sampled(self, policy: Any, requests: Sequence[Request]) -> list[Heard]:
        """Replies in the form of a chat completion, so that they are kept and read like any other."""
        from answering.asking import written

        c = self.config
        answers = written(
            policy,
            [policy.prompt(request.example, request.instruction) for request in requests],
            Decoding(c.max_new_tokens, c.temperature, rows_at_once=c.rows_at_once),
            [int(self.key(request)[:15], 16) for request in requests],
        )
        heard = []
        for request, answer in zip(requests, answers, strict=True):
            finish = "length" if answer.truncated else "stop"
            choice = {"message": {"role": "assistant", "content": answer.completion}, "finish_reason": finish}
            heard.append(Heard(request, 200, json.dumps({"choices": [choice]}).encode()))
        return heard

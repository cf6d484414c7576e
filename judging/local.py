"""A judge that runs here: an experiment's base with adapters on top, asked as every other question is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import override

from answering.decoding import Decoding
from artifacts.base_files import is_base_complete
from datamodules.batch import BadExampleError, Example, PictureError
from guards.ranges import Ranged, at_least
from judging.judge import Judge, JudgeError, Reply, Request


class LocalJudge(Judge):
    """Any model family of this project, with or without adapters; a reply has a random stream of its own."""

    @dataclass(frozen=True)
    class Config(Ranged):
        """Which model, and how it is sampled; temperature and limit are the release's."""

        config: str
        """Experiment file whose model and base are used, as `train.py --config` takes it."""
        overrides: tuple[str, ...] = ()
        """Dotted `key=value` settings of that file."""
        adapters: tuple[str, ...] = ()
        """Folders of adapters that act on the base, summed; none means the bare base."""
        temperature: Annotated[float, at_least(0)] = 0.1
        """The temperature of sampling; 0 takes the most likely token."""
        max_new_tokens: Annotated[int, at_least(1)] = 4096
        """Limit of a reply in tokens; at least 1."""
        rows_at_once: Annotated[int, at_least(1)] = 16
        """Replies decoded together, and kept together when the run is stopped; at least 1."""
        seed: int = 0
        """The seed of the draws."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; the model is loaded when it is first needed."""
        self.config = config

    @cached_property
    def model(self) -> Any:
        """The live model: an `answering.live_model.LiveModel`.

        Raises:
            JudgeError: the base is not trained yet, or an adapter is missing.
        """
        from experiment.live_model import live_model  # torch, which a wrong command need not wait for

        for folder in self.config.adapters:
            if not (Path(folder) / "manifest.json").is_file():
                raise JudgeError(f"adapters: {folder!r} holds no finished adapter (no manifest.json)")
        model = live_model(self.config.config, self.config.overrides)
        base = model.context.base_folder
        if base is not None and not is_base_complete(base):
            raise JudgeError(f"{base}: no trained base; run `python train.py --config {self.config.config}` first")
        return model

    @cached_property
    def _identity(self) -> dict[str, Any]:
        from artifacts.adapter_files import adapter_sha256

        return {
            "judge": "local",
            "model": self.model.fingerprint,
            "adapters": [adapter_sha256(Path(folder)) for folder in self.config.adapters],
            "temperature": self.config.temperature,
            "max_new_tokens": self.config.max_new_tokens,
            "seed": self.config.seed,
        }

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @override
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        from answering.asking import ask

        c = self.config
        decoding = Decoding(c.max_new_tokens, c.temperature, seed=c.seed, rows_at_once=c.rows_at_once)
        with self.model.acting([Path(folder) for folder in c.adapters]) as policy:
            for start in range(0, len(requests), c.rows_at_once):
                part = requests[start : start + c.rows_at_once]
                try:
                    answers = ask(policy, [as_question(request) for request in part], "", decoding)
                except PictureError as error:
                    raise JudgeError(str(error)) from error
                except BadExampleError as error:
                    raise JudgeError(f"{error}; is max_new_tokens ({c.max_new_tokens}) too large here?") from error
                for request, answer in zip(part, answers, strict=True):
                    yield request, Reply(answer.completion, answer.truncated)


def as_question(request: Request) -> Example:
    """The message as an open question; its answer is nobody's business, and is never read."""
    return Example(
        patient_id=request.key,
        images=request.pictures,
        question=request.prompt,
        options=(),
        answer="a verdict",
        question_id=request.key,
    )

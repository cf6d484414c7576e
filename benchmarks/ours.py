"""What both of our workers share: the Qwen2.5-VL family on the made model, counted, and Lightning, clocked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil
from typing_extensions import override

from benchmarks import made_model, made_rows, work
from benchmarks.clock import Recorder
from datamodules.batch import Example
from experiment.memory import keep_freed_memory
from lightning_modules.families.base import ImageInput
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.tiny import TEMPLATE
from lightning_modules.policy import Policy, Scores
from lightning_modules.prompts import Prompt

PACKAGES = ("torch", "lightning", "transformers", "peft", "numpy")


class MadeFamily(Qwen2_5_VL):
    """The family's own code around the made model; only `_build` differs, and that calls are counted."""

    @dataclass(frozen=True)
    class Config:
        """Which made model."""

        size: str = "5m"
        """Key of `made_model.SIZES`."""
        folder: str = "."
        """Where the tokenizer lies or is written."""
        system: str = ""
        """The made chat frame has no system turn."""

    def __init__(self, config: Config, recorder: Recorder, banned: Sequence[str] | None = None) -> None:
        """Build the model.

        Args:
            config: see `Config`.
            recorder: takes the counts.
            banned: tokens that are neither sampled nor scored; None leaves that to the family.
        """
        super().__init__(config)
        self.recorder = recorder
        if banned is not None:
            self.banned_token_ids = tuple(sorted(self.tokenizer.convert_tokens_to_ids(list(banned))))
        recorder.count_tokens(self.model.model.language_model)

    @override
    def _build(self, weights: Path | None, outline: bool, blocks_in_files: bool) -> None:
        self.tokenizer = made_model.tokenizer(self.config.size, Path(self.config.folder))
        self.template = TEMPLATE
        self.image_processor = Qwen2VLImageProcessorPil(min_pixels=work.MIN_PIXELS, max_pixels=work.MAX_PIXELS)
        self.model = made_model.model(self.config.size, self.tokenizer)

    @override
    def preprocess(self, image: Image.Image) -> ImageInput:
        self.recorder.count("images_preprocessed")
        return super().preprocess(image)

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        self.recorder.count("images_encoded", len(inputs))
        return super().encode_images(inputs)

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        self.recorder.count("lm_head_rows", hidden.shape[:-1].numel())
        return super().logits(hidden)


class CountedPolicy(Policy):
    """Counts what is scored without padding, each row in full: the work's own size, however it is computed."""

    @override
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], *args: Any, **kwargs: Any
    ) -> Scores:
        trained = sum(map(len, completions))
        self.family.recorder.count("trained_tokens", trained)
        self.family.recorder.count("real_tokens", trained + sum(len(prompt.ids) for prompt in prompts))
        return super().score(prompts, completions, *args, **kwargs)


def example(index: int, row: made_rows.Row) -> Example:
    """A made row as our data modules would yield it."""
    return Example(f"p{index}", (row.image,), row.question, row.options, row.options[0], f"q{index}")


class StepClock(L.Callback):
    """Cuts training into steps; a step begins where the last one ends, so that loading its batch belongs to it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.begin()

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.recorder.now.phases |= pl_module.clock.cpu
        pl_module.clock.take()  # begins anew
        self.recorder.end()
        self.recorder.begin()


class StepValues(Logger):
    """Keeps what the stage logs, one dictionary per step, instead of writing it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        """Unused."""
        return "benchmark"

    @property
    def version(self) -> int:
        """Unused."""
        return 0

    @override
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    @override
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))


def trainer(steps: int, recorder: Recorder, values: StepValues, **settings: Any) -> L.Trainer:
    """A Lightning trainer on one CPU that writes nothing.

    Args:
        steps: in all, the warm-up included.
        recorder: of the steps.
        values: of what is logged.
        settings: more of Lightning's.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # as train.py does
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=1,
        logger=values,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepClock(recorder)],
        **settings,
    )


def attach(recorder: Recorder, values: Iterable[dict[str, float]], names: dict[str, str]) -> None:
    """Put logged metrics into the steps under the names that both sides use.

    Args:
        recorder: with its steps.
        values: one dictionary per step.
        names: logged name -> common name.
    """
    for step, logged in zip(recorder.steps, values, strict=False):
        step.values |= {names[name]: float(value) for name, value in logged.items() if name in names}

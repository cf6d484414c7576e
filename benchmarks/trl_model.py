"""What both TRL workers share: the processor around the made tokenizer, adapters, counters, the clock's callback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers import Qwen2_5_VLProcessor, TrainerCallback
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from trl.trainer import utils as trl_utils

from benchmarks import made_model, work
from benchmarks.clock import Recorder

PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "numpy")
LORA = LoraConfig(
    r=work.RANK,
    lora_alpha=work.ALPHA,
    lora_dropout=0.0,
    target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    task_type="CAUSAL_LM",
)
TUNED = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "learning_rate": work.LEARNING_RATE,
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "optim": "adamw_torch",
    "adam_beta2": 0.99,
    "weight_decay": 0.0,
    "max_grad_norm": work.MAX_GRAD_NORM,
    "seed": 0,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "dataloader_num_workers": 0,
}
"""Settings of both trainers: fp32 and no recomputation, which on one thread is faster than TRL's own defaults; schedule
and β₂ are those of our stages, so that the weights stay comparable over the steps."""


class StillsProcessor(Qwen2_5_VLProcessor):
    """The family's processor for pictures only: its video part would need torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = made_model.IMAGE, made_model.VIDEO
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([made_model.IMAGE, made_model.VIDEO])
        self.video_processor = None
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Parts that the base class checks."""
        return [name for name in super().get_attributes() if name != "video_processor"]


class CountedImages(Qwen2VLImageProcessorPil):
    """The PIL image processor, which our side has too; tells the recorder how many pictures it prepared."""

    recorder: Recorder

    def __call__(self, images: Any, *arguments: Any, **settings: Any) -> Any:
        """Prepare pictures, a list or a list of lists."""
        self.recorder.count("images_preprocessed", number_of(images))
        return super().__call__(images, *arguments, **settings)


def number_of(images: Any) -> int:
    """Pictures in nested lists."""
    return sum(map(number_of, images)) if isinstance(images, Sequence) else 1


def made(size: str, folder: Path, recorder: Recorder) -> tuple[StillsProcessor, nn.Module]:
    """Processor and model of the work."""
    tokens = made_model.tokenizer(size, folder)
    image_processor = CountedImages(min_pixels=work.MIN_PIXELS, max_pixels=work.MAX_PIXELS)
    image_processor.recorder = recorder
    return StillsProcessor(image_processor, tokens, made_model.CHAT_TEMPLATE), made_model.model(size, tokens)


def count(base: nn.Module, recorder: Recorder) -> None:
    """Count pictures encoded, language tokens and rows of the LM head.

    In training TRL scores inside one autograd function, which recomputes its logits in the backward pass: those rows
    are not counted.
    """

    def images(_module: nn.Module, inputs: tuple, settings: dict, _outputs: Any) -> None:
        grids = settings["grid_thw"] if "grid_thw" in settings else inputs[1]
        recorder.count("images_encoded", grids.shape[0])

    def head(_module: nn.Module, inputs: tuple, _outputs: Any) -> None:
        recorder.count("lm_head_rows", inputs[0].shape[:-1].numel())

    class CountedScoring:
        original = trl_utils._ChunkedLogProbFunction

        @classmethod
        def apply(cls, hidden: Any, *rest: Any) -> Any:
            recorder.count("lm_head_rows", hidden.shape[:-1].numel())
            return cls.original.apply(hidden, *rest)

    trl_utils._ChunkedLogProbFunction = CountedScoring
    base.model.visual.register_forward_hook(images, with_kwargs=True)
    base.lm_head.register_forward_hook(head)
    recorder.count_tokens(base.model.language_model)


class StepClock(TrainerCallback):
    """Cuts training into steps, as our side's callback of the same name."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        """Start the first step."""
        self.recorder.timed(optimizer, "step", "optimizer")
        self.recorder.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Finish a step and start the next."""
        self.recorder.end()
        self.recorder.begin()


def attach(recorder: Recorder, history: list[dict[str, Any]], names: dict[str, str]) -> None:
    """Put the trainer's log into the steps, one entry per step, under the names that both sides use."""
    logged = [entry for entry in history if "loss" in entry]
    for step, entry in zip(recorder.steps, logged, strict=True):
        step.values |= {names[name]: float(value) for name, value in entry.items() if name in names}

"""One GBA step of a random Qwen2.5-VL of 3 B or 7 B on a GPU: `python -m benchmarks.gpu_step --size 3b`.

Frozen weights in bf16, adapters in fp32, the real training step under Lightning. Rewards are made, so that no row is
dead; completions run to their limit, because a random model never ends. What is printed: seconds per phase of the
second and third step, tokens per second, and the most memory that was held.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from typing_extensions import override

from benchmarks import made_model, made_rows, ours, work
from benchmarks.ours_rl import MadeRL
from datamodules.batch import Batch
from experiment.reproducible import same_numbers
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.tiny import TEMPLATE
from lightning_modules.policy import Policy
from lightning_modules.stage import StageContext

SIZES = {
    "3b": {"hidden": 2048, "intermediate": 11_008, "layers": 36, "heads": 16, "kv": 2, "vocabulary": 151_936},
    "7b": {"hidden": 3584, "intermediate": 18_944, "layers": 28, "heads": 28, "kv": 4, "vocabulary": 152_064},
}
"""Published shapes of Qwen2.5-VL's language models; the vision tower is the same for both."""


class LargeFamily(Qwen2_5_VL):
    """The family on random weights of a published shape, drawn on the GPU in bf16."""

    @override
    def _build(self, weights: Path | None, outline: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer = made_model.tokenizer("5m", Path(folder))
        self.template = TEMPLATE
        self.image_processor = Qwen2VLImageProcessorPil(min_pixels=work.MIN_PIXELS, max_pixels=work.MAX_PIXELS)
        with torch.device("cuda"):
            torch.set_default_dtype(torch.bfloat16)
            self.model = Qwen2_5_VLForConditionalGeneration(config_of(self.config.path, self.tokenizer))
            torch.set_default_dtype(torch.float32)


def config_of(size: str, tokenizer) -> Qwen2_5_VLConfig:
    """The model's shape, with the made tokenizer's control tokens."""
    s, ids = SIZES[size], tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": s["vocabulary"],
        "hidden_size": s["hidden"],
        "intermediate_size": s["intermediate"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision
        | {
            "out_hidden_size": s["hidden"],
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
            "patch_size": 14,
        },
        image_token_id=ids(made_model.IMAGE),
        video_token_id=ids(made_model.VIDEO),
        vision_start_token_id=ids(made_model.VISION_START),
        vision_end_token_id=ids(made_model.VISION_END),
    )


class Phases(L.Callback):
    """Collects each step's times."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.steps: list[dict[str, float]] = []

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.steps.append(pl_module.clock.take())


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="3b")
    parser.add_argument("--group", type=int, default=8, help="completions per question")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per completion")
    parser.add_argument("--checkpoint-layers", action="store_true")
    parser.add_argument("--fast", action="store_true", help="let kernels differ in their last bits from run to run")
    given = parser.parse_args()
    same_numbers()
    family = LargeFamily(LargeFamily.Config(path=given.size, system=""))
    settings = MadeRL.Config(
        rollouts_per_guideline=given.group,
        questions_per_step=work.PROMPTS_PER_STEP,
        max_new_tokens=given.tokens,
        micro_batch_tokens=4096,
        checkpoint_layers=given.checkpoint_layers,
        warmup=0.0,
    )
    stage, phases, values = MadeRL(settings, context=StageContext(Policy(family))), Phases(), ours.StepValues()
    examples = [ours.example(i, row) for i, row in enumerate(made_rows.rl_rows(family.tokenizer))]
    each = work.PROMPTS_PER_STEP
    batches = [Batch(tuple(examples[first : first + each])) for first in range(0, 3 * each, each)]
    trainer = L.Trainer(
        accelerator="gpu", devices=1, max_steps=3, max_epochs=1, logger=values, callbacks=[phases],
        log_every_n_steps=1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        deterministic=not given.fast,
    )  # fmt: skip
    trainer.fit(stage, DataLoader(batches, batch_size=None))
    measured = [{name: round(value, 3) for name, value in step.items()} for step in phases.steps[1:]]
    shown = {name: values.rows[-1][name] for name in ("train/kl/ref_nats", "train/entropy_nats", "train/grad_norm")}
    told = {"device": torch.cuda.get_device_name(), **vars(given), "steps": measured, "last": shown}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

"""TRL's side of the SFT benchmark: SFTTrainer, tuned for one CPU thread. A worker of `sft_vs_trl`."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks import made_model, made_rows, trl_model, work
from benchmarks.clock import PeakMemory, Recorder, summary, versions
from benchmarks.worker import arguments, leave


def build(given: argparse.Namespace, recorder: Recorder) -> SFTTrainer:
    """The trainer on the run's rows in their order, with an adapter that acts."""
    processor, model = trl_model.made(given.size, given.folder, recorder)
    rows = [
        {
            "prompt": [{"role": "user", "content": row.text}],
            "completion": [{"role": "assistant", "content": row.answer}],
            "images": [row.image],
        }
        for row in made_rows.sft_rows(processor.tokenizer, given.work)
    ]
    settings = SFTConfig(
        output_dir=str(given.folder / "trl"),
        max_steps=given.steps + 1,
        per_device_train_batch_size=work.SFT_ROWS,
        gradient_accumulation_steps=1,
        train_sampling_strategy="sequential",
        max_length=None,
        completion_only_loss=True,
        **trl_model.TUNED,
    )
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=trl_model.LORA,
        callbacks=[trl_model.StepClock(recorder)],
    )
    made_model.fill_adapter(trainer.model)
    watch(trainer, recorder)
    return trainer


def watch(trainer: SFTTrainer, recorder: Recorder) -> None:
    """Clock the phases and count."""
    trl_model.count(trainer.model.get_base_model(), recorder)
    recorder.timed(trainer, "data_collator", "collate")
    recorder.timed(trainer.accelerator, "backward", "backward")
    compute = trainer.compute_loss

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **settings: Any) -> Any:
        recorder.count("real_tokens", int(inputs["attention_mask"].sum()))
        recorder.count("trained_tokens", int((inputs["labels"] != -100).sum()))
        with recorder.phase("forward"):
            return compute(model, inputs, *rest, **settings)

    trainer.compute_loss = counted


def main(given: argparse.Namespace) -> dict:
    """Train for the steps asked for, after one of warm-up."""
    torch.set_num_threads(1)
    recorder = Recorder()
    trainer = build(given, recorder)
    with PeakMemory() as memory:
        trainer.train()
    trl_model.attach(recorder, trainer.state.log_history, {"loss": "loss", "grad_norm": "grad_norm"})
    first = {name: recorder.steps[0].values[name] for name in ("loss", "grad_norm")}
    return summary(recorder, memory) | {"fixed_batch": first, "versions": versions(*trl_model.PACKAGES)}


if __name__ == "__main__":
    chosen = arguments(work.SFT_WORKS)
    leave(main(chosen), chosen.out)

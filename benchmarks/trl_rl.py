"""TRL's side of the RL benchmark: GRPOTrainer, tuned for one CPU thread. A worker of `rl_vs_trl`."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from trl import GRPOConfig, GRPOTrainer

from benchmarks import made_model, made_rows, trl_model, work
from benchmarks.clock import PeakMemory, Recorder, summary, versions
from benchmarks.worker import arguments, leave

NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "kl": "kl",
    "reward": "reward",
    "completions/mean_length": "completion_tokens",
}


class ForcedLengths(LogitsProcessor):
    """Every row ends exactly at its length: the end token is banned before and the only choice there."""

    def __init__(self, lengths: list[int], prompt_tokens: int, end: int) -> None:
        self.lengths, self.prompt_tokens, self.end = torch.tensor(lengths), prompt_tokens, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token."""
        last = self.lengths == input_ids.shape[1] - self.prompt_tokens + 1
        kept = scores[last, self.end]
        scores[last] = -torch.inf
        scores[:, self.end] = -torch.inf
        scores[last, self.end] = kept
        return scores


def reward_functions(work_name: str, group: int, vocabulary: int) -> list:
    """The work's rewards as TRL calls them; rows come question by question."""

    def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
        dead = [work.is_dead(work_name, row // group) for row in range(len(completion_ids))]
        return [0.5 if d else work.reward_even(ids) for d, ids in zip(dead, completion_ids, strict=True)]

    def low(completion_ids: list[list[int]], **_: Any) -> list[float]:
        dead = [work.is_dead(work_name, row // group) for row in range(len(completion_ids))]
        return [0.0 if d else work.reward_low(ids, vocabulary) for d, ids in zip(dead, completion_ids, strict=True)]

    return [even, low]


def build(given: argparse.Namespace, recorder: Recorder) -> GRPOTrainer:
    """The trainer, its parts clocked and counted."""
    processor, model = trl_model.made(given.size, given.folder, recorder)
    rows = made_rows.rl_rows(processor.tokenizer)
    prompts = [{"prompt": [{"role": "user", "content": row.text}], "image": row.image} for row in rows]
    settings = GRPOConfig(
        output_dir=str(given.folder / "trl"),
        max_steps=given.steps + 1,
        per_device_train_batch_size=work.MICRO_ROWS,
        gradient_accumulation_steps=work.PROMPTS_PER_STEP * given.group // work.MICRO_ROWS,
        num_generations=given.group,
        max_completion_length=work.COMPLETION_TOKENS,
        generation_kwargs={} if given.work == "varlen" else {"min_new_tokens": work.COMPLETION_TOKENS},
        shuffle_dataset=False,
        beta=work.beta_of(given.work),
        epsilon=work.CLIP,
        loss_type="grpo",
        scale_rewards="group",
        reward_weights=list(work.REWARD_WEIGHTS),
        use_bias_correction_kl=False,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        **trl_model.TUNED,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward_functions(given.work, given.group, made_model.SIZES[given.size].vocabulary),
        args=settings,
        train_dataset=Dataset.from_list(prompts),
        processing_class=processor,
        peft_config=trl_model.LORA,
        callbacks=[trl_model.StepClock(recorder)],
    )
    watch(trainer, recorder)
    if given.work == "varlen":
        force_lengths(trainer)
    return trainer


def watch(trainer: GRPOTrainer, recorder: Recorder) -> None:
    """Clock the phases and count; `reference` is scoring without gradient, which nothing else does here."""
    trl_model.count(trainer.model.get_base_model(), recorder)
    recorder.timed(trainer, "_tokenize_prompts", "rollout")
    recorder.timed(trainer, "_generate_single_turn", "rollout")
    recorder.timed(trainer, "_calculate_rewards", "reward")
    recorder.timed(trainer, "compute_loss", "forward")
    recorder.timed(trainer.accelerator, "backward", "backward")
    score = trainer._get_per_token_logps_and_entropies

    def scored(*given: Any, **settings: Any) -> Any:
        if torch.is_grad_enabled():
            return score(*given, **settings)
        with recorder.phase("reference"):
            return score(*given, **settings)

    trainer._get_per_token_logps_and_entropies = scored


def force_lengths(trainer: GRPOTrainer) -> None:
    """Give every call of `generate` the lengths of its step."""
    generate, end = trainer.model.generate, trainer.processing_class.tokenizer.eos_token_id

    def forced(*given: Any, input_ids: Tensor, **settings: Any) -> Tensor:
        lengths = work.completion_lengths(trainer.state.global_step, input_ids.shape[0])
        processor = ForcedLengths(lengths, input_ids.shape[1], end)
        return generate(*given, input_ids=input_ids, logits_processor=LogitsProcessorList([processor]), **settings)

    trainer.model.generate = forced


def measure(given: argparse.Namespace) -> dict:
    """Train for the steps asked for, after one of warm-up."""
    recorder = Recorder()
    trainer = build(given, recorder)
    with PeakMemory() as memory:
        trainer.train()
    trl_model.attach(recorder, trainer.state.log_history, NAMES)
    return summary(recorder, memory) | {"versions": versions(*trl_model.PACKAGES)}


def fixed_batch(given: argparse.Namespace) -> dict:
    """Loss and gradient norm on the fixed batch.

    TRL's `grpo` loss divides by the number of micro-batches where it is in training mode; their values add up.
    """
    trainer = build(given, Recorder())
    made_model.fill_adapter(trainer.model)
    trainer.model.train()
    batch = fixed_inputs(trainer.processing_class, made_model.SIZES[given.size].vocabulary)
    pieces = [cut(batch, first) for first in range(0, len(batch["advantages"]), work.MICRO_ROWS)]
    trainer.current_gradient_accumulation_steps = len(pieces)
    loss = 0.0
    for piece in pieces:
        with torch.no_grad(), trainer.model.disable_adapter():
            base, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                torch.cat([piece["prompt_ids"], piece["completion_ids"]], dim=1),
                torch.cat([piece["prompt_mask"], piece["completion_mask"]], dim=1),
                piece["completion_ids"].shape[1],
                **{name: piece[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
            )
        share = trainer.compute_loss(trainer.model, piece | {"ref_per_token_logps": base, "old_per_token_logps": base})
        share.backward()
        loss += float(share.detach())
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    return {"loss": loss, "grad_norm": float(torch.nn.utils.clip_grad_norm_(trained, torch.inf))}


def fixed_inputs(processor: trl_model.StillsProcessor, vocabulary: int) -> dict[str, Any]:
    """The fixed batch as TRL's own rollout would hand it to the loss, reference left out."""
    completions, advantages = work.fixed_completions(vocabulary)
    rows = [row for row in made_rows.rl_rows(processor.tokenizer)[: work.PROMPTS_PER_STEP] for _ in range(work.GROUP)]
    texts = [made_rows.chat_text(processor.tokenizer, row) for row in rows]
    prompts = processor(images=[[row.image] for row in rows], text=texts, padding=True, return_tensors="pt")
    width = max(map(len, completions))
    pad = processor.tokenizer.pad_token_id
    completion_ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in completions])
    completion_mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in completions])
    kinds = prompts["mm_token_type_ids"]
    return {
        "prompt_ids": prompts["input_ids"],
        "prompt_mask": prompts["attention_mask"],
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor(advantages),
        "pixel_values": prompts["pixel_values"].unflatten(0, (len(rows), -1)),
        "image_grid_thw": prompts["image_grid_thw"],
        "mm_token_type_ids": torch.cat([kinds, kinds.new_zeros(completion_ids.shape)], dim=1),
    }


def cut(batch: dict[str, Any], first: int) -> dict[str, Any]:
    """One micro-batch."""
    piece = {name: value[first : first + work.MICRO_ROWS] for name, value in batch.items()}
    return piece | {"pixel_values": piece["pixel_values"].flatten(0, 1), "num_images": [1] * len(piece["advantages"])}


def main(given: argparse.Namespace) -> dict:
    """Run what the driver asks for."""
    torch.set_num_threads(1)
    return fixed_batch(given) if given.fixed_batch else measure(given)


if __name__ == "__main__":
    chosen = arguments([name for name in work.RL_WORKS if name != "growth"])
    leave(main(chosen), chosen.out)

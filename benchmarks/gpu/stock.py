"""The same step as GRPO trainers on stock parts take it: `generate`, then padded rows through the stock forward.

What TRL does at its defaults: every row has its own prompt and picture, prompts are padded on the left and completions
on the right; PEFT's own layers; checkpointing while scoring; autocast to bf16 where the weights are bf16; and whichever
kernels PyTorch prefers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.gpu.lines import now
from benchmarks.gpu.made import endless
from benchmarks.gpu.sizes import Size
from benchmarks.gpu.training import RLStep, bare_afterwards, rl_config, rounded
from lightning_modules.adapters import LoRASettings
from lightning_modules.functional import policy_loss
from lightning_modules.functional.reductions import Denominators, token_mean
from lightning_modules.losses.clipped import Clipped
from lightning_modules.losses.kl import InLoss
from lightning_modules.packing import ATTENTION
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt


def step(policy: Policy, size: Size, device: str, ours: RLStep) -> dict[str, Any]:
    """Repeat a step; completions are generated for the time, and ours are scored, so that gradients can be compared."""
    config, rollouts, name = rl_config(size), ours.rollouts, "gba"
    rows = range(len(rollouts.completions))
    prompts, ids = [rollouts.prompt(row) for row in rows], rollouts.ids(rows)
    with bare_afterwards(policy), endless(policy):
        policy.add_adapter(name, LoRASettings(config.lora_rank, config.lora_alpha, config.lora_seed))
        policy.activate([name], trainable=name)
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        torch.nn.utils.vector_to_parameters(ours.weights, trained)
        with stock_layers(policy), cast(policy, device), preferred_kernels():
            marks = [now(device)]
            written = generate(policy, prompts, size.new_tokens)
            marks.append(now(device))
            policy.checkpoint_layers()
            scored = score_and_differentiate(policy, name, prompts, ids, rollouts.advantages.flatten(), size, device)
        gradient = torch.cat([parameter.grad.flatten() for parameter in trained])
        marks.append(now(device))
        torch.optim.AdamW(trained, lr=config.learning_rate).step()
        marks.append(now(device))
    seconds = marks[-1] - marks[0]
    phases = {"rollout": marks[1] - marks[0], **scored, "optimizer": marks[3] - marks[2]}
    return {
        "seconds": round(seconds, 3),
        "ours_over_stock": round(ours.seconds / seconds, 4),
        "phases": rounded(phases),
        "rollout_tokens_per_s": round(written / phases["rollout"], 1),
        "gradient_cosine": float(torch.cosine_similarity(gradient.double(), ours.gradient.double(), dim=0)),
        "gradient_norm_ratio": float(gradient.double().norm() / ours.gradient.double().norm()),
    }


@contextmanager
def stock_layers(policy: Policy) -> Iterator[None]:
    """PEFT's own forward in every adapted layer, and transformers' own attention, for a while."""
    model = policy.family.model
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    forwards = [vars(layer).pop("forward", None) for layer in layers]
    model.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": ATTENTION})
        for layer, forward in zip(layers, forwards, strict=True):
            if forward is not None:
                layer.forward = forward


@contextmanager
def preferred_kernels() -> Iterator[None]:
    """Kernels need not give the same bits each time, for a while."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def cast(policy: Policy, device: str) -> torch.autocast | nullcontext:
    """Autocast where the weights are bf16."""
    wide = policy.family.model.dtype == torch.float32
    return nullcontext() if wide else torch.autocast(device, torch.bfloat16)


def padded_prompts(policy: Policy, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """The stock model's inputs, padded on the left, every row with its own pictures."""
    width = max(len(prompt.ids) for prompt in prompts)
    pad = policy.family.pad_token_id
    input_ids = torch.tensor([[pad] * (width - len(p.ids)) + list(p.ids) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
    images = [item for prompt in prompts for _, item in prompt.images]
    found = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "mm_token_type_ids": (input_ids == policy.family.image_token_id).int(),
        "pixel_values": torch.cat([item.pixels for item in images]),
        "image_grid_thw": torch.tensor([item.grid for item in images]),
    }
    return {name: tensor.to(policy.device) for name, tensor in found.items()}


@torch.no_grad()
def generate(policy: Policy, prompts: Sequence[Prompt], tokens: int) -> int:
    """Sample so many tokens for every row by the stock loop; how many were written in all."""
    inputs = padded_prompts(policy, prompts)
    out = policy.family.model.generate(
        **inputs,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        suppress_tokens=policy.banned.tolist(),
        pad_token_id=policy.family.pad_token_id,
        eos_token_id=policy.family.eos_token_id,
    )
    return (out.shape[1] - inputs["input_ids"].shape[1]) * len(prompts)


def logps_of(policy: Policy, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(B, T) nats of completions by the stock forward, and their mask."""
    inputs = padded_prompts(policy, prompts)
    completions = pad_sequence([torch.tensor(row) for row in ids], batch_first=True).to(policy.device)
    lengths = torch.tensor([len(row) for row in ids], device=policy.device)
    mask = torch.arange(completions.shape[1], device=policy.device) < lengths[:, None]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], completions], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask.to(inputs["attention_mask"])], dim=1)
    kinds = inputs["mm_token_type_ids"]
    inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(completions.shape)], dim=1)
    logits = policy.family.model(**inputs, use_cache=False, logits_to_keep=completions.shape[1] + 1).logits
    logits = logits[:, :-1].float().index_fill(-1, policy.banned, -torch.inf)
    return logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0], mask


def score_and_differentiate(
    policy: Policy,
    name: str,
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    advantages: Tensor,
    size: Size,
    device: str,
) -> dict[str, float]:
    """The gradient of GRPO's loss with its KL, in padded micro-batches; seconds of scoring and of the backward pass."""
    loss_of, kl = Clipped(), InLoss()
    sizes = Denominators(sum(map(len, ids)), len(ids), size.new_tokens)
    found = {"scoring": 0.0, "backward": 0.0}
    for first in range(0, len(ids), size.stock_rows):
        rows = slice(first, first + size.stock_rows)
        began = now(device)
        with torch.no_grad(), policy.acting(()):
            reference, _ = logps_of(policy, prompts[rows], ids[rows])
        logps, mask = logps_of(policy, prompts[rows], ids[rows])
        values = loss_of(logps, logps.detach(), advantages[rows].to(logps), mask).values
        values = values + kl.config.beta * policy_loss.k3_kl(logps, reference)
        loss = token_mean(values, mask, sizes)
        scored = now(device)
        loss.backward()
        found["scoring"] += scored - began
        found["backward"] += now(device) - scored
    policy.activate([name], trainable=name)
    return found

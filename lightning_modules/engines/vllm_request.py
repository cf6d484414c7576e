"""What vLLM is asked for rollouts, in JSON's types, and what of its replies is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
"""Of checkpoints whose picture features vLLM takes as this code base makes them."""
OTHERWISE = "take lightning_modules.engines.packed.Packed"


def served_checkpoint(family: VisionLanguageFamily) -> dict[str, Any]:
    """What vLLM loads in place of a family.

    Raises:
        ValueError: vLLM would not serve the same model.
    """
    kind, path = family.model.config.model_type, getattr(family.config, "path", "")
    if kind not in MODEL_TYPES or not path:
        raise ValueError(
            f"engine: vLLM serves checkpoints in the hub's layout with model_type {' or '.join(MODEL_TYPES)}, got "
            f"{type(family).__name__} with model_type {kind!r}; {OTHERWISE}"
        )
    if family.weights is not None:
        raise ValueError(
            f"engine: vLLM would serve {path} as it was published, but this base has weights of its own, "
            f"{family.weights}; {OTHERWISE}"
        )
    local = Path(path).is_dir()
    return {
        "model": str(Path(path).resolve()) if local else path,
        "revision": None if local else getattr(family.config, "revision", None),
        # As it stands in memory: an experiment's `precision` may have cast what the checkpoint's settings say.
        "dtype": str(family.model.get_input_embeddings().weight.dtype).removeprefix("torch."),
    }


def request_of(policy: Policy, prompts: Sequence[Prompt]) -> tuple[dict[str, Any], list[Any]]:
    """Prompts with their pictures' features, each distinct picture once, and the distribution that is sampled from.

    Choice: features and not pictures. The tower is frozen, so that they are made once in a run and scored with; a
        second preprocessing would have to be proved equal, and would have the tower in a card's memory twice.

    Returns:
        A part of the request, and the bytes that go with it.
    """
    family = policy.family
    features = policy.features(item for prompt in prompts for item in prompt.images)
    grids = {key: item.grid for prompt in prompts for key, item in prompt.images}
    number = {key: place for place, key in enumerate(features)}
    message = {
        "place": family.image_token_id,
        "ends": list(family.end_token_ids),
        "banned": list(family.banned_token_ids),
        "pictures": [
            {"dtype": str(item.dtype).removeprefix("torch."), "shape": list(item.shape), "grid": list(grids[key] or ())}
            for key, item in features.items()
        ],
        "prompts": [{"ids": prompt.ids, "pictures": [number[key] for key, _ in prompt.images]} for prompt in prompts],
    }
    return message, [bytes_of(item) for item in features.values()]


def bytes_of(values: Tensor) -> Any:
    """A tensor's content."""
    return values.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1)


def completions_of(
    replies: Iterable[dict[str, Any]], prompts: Sequence[Prompt], family: VisionLanguageFamily, limit: int
) -> list[Completion]:
    """All rollouts, in the order of their rows, whatever the order in which they ended.

    Args:
        replies: of the server.
        prompts: of each row.
        family: whose tokens these are.
        limit: T_max.

    Raises:
        ValueError: a rollout is missing, comes twice, or is none of the distribution that was asked for.
    """
    found: dict[int, Completion] = {}
    for reply in replies:
        if "row" not in reply:
            continue
        row = reply["row"]
        if row in found or row not in range(len(prompts)):
            raise ValueError(f"rollout {row!r} of {len(prompts)} comes twice, or was not asked for")
        found[row] = completion_of(reply, prompts[row], family, limit)
    if len(found) < len(prompts):
        raise ValueError(f"{len(found)} of {len(prompts)} rollouts came")
    return [found[row] for row in range(len(prompts))]


def completion_of(reply: dict[str, Any], prompt: Prompt, family: VisionLanguageFamily, limit: int) -> Completion:
    """One rollout; arguments and errors as of `completions_of`."""
    ids, logps, there = (reply.get(name) for name in ("ids", "logps", "prompt_tokens"))
    ends, known = set(family.end_token_ids), range(family.model.config.get_text_config().vocab_size)
    if not (isinstance(ids, list) and isinstance(logps, list) and 1 <= len(ids) <= limit and len(logps) == len(ids)):
        raise ValueError(f"question {prompt.question_id!r}: no 1 to {limit} tokens with as many log-probabilities")
    banned = sorted(set(ids) & set(family.banned_token_ids))
    faults = {
        f"the prompt has {there!r} tokens there and {len(prompt.ids)} here": there != len(prompt.ids),
        f"tokens that are none, such as {next((i for i in ids if i not in known), 0)!r}": any(
            i not in known for i in ids
        ),
        f"banned tokens {banned} were sampled": bool(banned),
        f"it stops after {len(ids)} of {limit} tokens without an end token": ids[-1] not in ends and len(ids) < limit,
        "it goes on after an end token": bool(ends & set(ids[:-1])),
        "log-probabilities must be finite numbers up to 0": not all(map(is_log_probability, logps)),
    }
    found = [fault for fault, holds in faults.items() if holds]
    if found:
        raise ValueError(f"question {prompt.question_id!r}: {'; '.join(found)}")
    text = family.tokenizer.decode([token for token in ids if token not in ends], skip_special_tokens=False)
    return Completion(tuple(ids), tuple(map(float, logps)), text, truncated=ids[-1] not in ends)


def is_log_probability(value: Any) -> bool:
    """A finite number up to 0, rounding allowed."""
    return isinstance(value, int | float) and math.isfinite(value) and value <= 1e-3

"""All adapters that act, as the one LoRA that vLLM applies to a request."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from artifacts.adapter_checks import check_tensors
from artifacts.adapter_files import CONFIG, WEIGHTS, dump, plain
from artifacts.lora_config import alpha_of, exact_config
from lightning_modules.adapters import AdaptedModel

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Module -> A (r, n) and B (m, r), of one rank; the update is B A."""


def acting_adapter(model: AdaptedModel) -> Factors:
    """The sum of the acting adapters: their factors side by side, each with its scale in B, zeros up to one rank."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for name in model.active:
        config, tensors = model.adapter_state(name)
        for module, (A, B) in check_tensors(tensors, f"adapter {name!r}").items():
            rank = A.shape[0]
            alpha = alpha_of(config, [module], rank, f"adapter {name!r}")
            found[module].append((A, B * (alpha / (rank**0.5 if config.get("use_rslora") else rank))))
    joined = {
        module: (torch.cat([A for A, _ in parts]), torch.cat([B for _, B in parts], dim=1))
        for module, parts in found.items()
    }
    most = rank_of(joined)
    pad = torch.nn.functional.pad
    return {
        module: (pad(A, (0, 0, 0, most - A.shape[0])), pad(B, (0, most - B.shape[1])))
        for module, (A, B) in joined.items()
    }


def rank_of(factors: Factors) -> int:
    """The largest rank; 0 where nothing acts."""
    return max((A.shape[0] for A, _ in factors.values()), default=0)


def room_for(rank: int) -> int:
    """The smallest `max_lora_rank` that holds a rank.

    Raises:
        ValueError: none does.
    """
    fitting = [size for size in RANKS if size >= rank]
    if not fitting:
        raise ValueError(
            f"the acting adapters have rank {rank} together, vLLM takes up to {RANKS[-1]}; lower lora_rank"
        )
    return fitting[0]


def digest(factors: Factors) -> str:
    """Names an update by its content."""
    found = hashlib.sha256()
    for module, (A, B) in sorted(factors.items()):
        found.update(f"{module} {tuple(A.shape)} {tuple(B.shape)}".encode())
        found.update(A.numpy())
        found.update(B.numpy())
    return found.hexdigest()


def write_peft(folder: Path, factors: Factors) -> None:
    """A new folder as PEFT writes it, to be read once and removed."""
    folder.mkdir()
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": factor.contiguous()
        for module, pair in factors.items()
        for side, factor in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / WEIGHTS)
    rank = rank_of(factors)  # alpha is the rank as well: the scale stands in B
    config = exact_config(dict.fromkeys(factors, rank), dict.fromkeys(factors, rank), {"task_type": "CAUSAL_LM"})
    (folder / CONFIG).write_text(dump(plain(config)), encoding="utf-8")

"""The work of the merge benchmark: LoRA experts of a made base, with directions that they share and signs that differ.

A tensor depends on seed, expert, layer and projection alone, so that fewer layers are a subset of more. Imported by
both sides; only torch and safetensors are needed, and transformers where the base's weights are written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

FINGERPRINT = "0" * 64
"""What the experts' manifests call their base, which is never loaded."""


@dataclass(frozen=True)
class MergeWork:
    """Sizes of the work; the defaults are the decoder of a model of 1.5 B parameters."""

    layers: int = 28
    hidden: int = 1536
    inner: int = 8960
    heads: int = 12
    kv_heads: int = 2
    rank: int = 64
    experts: int = 4
    vocabulary: int = 512
    delta_rms: float = 2e-4
    """Root mean square of an expert's dense update."""
    shared: float = 0.5
    """How much of the factors all experts have in common, in [0, 1]."""
    flipped: float = 0.3
    """Share of the common directions whose sign an expert turns."""
    seed: int = 0

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Projection -> (outputs, inputs), with the name of its block."""
        kv = self.hidden // self.heads * self.kv_heads
        attention = {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, self.hidden),
        }
        mlp = {name: (self.inner, self.hidden) for name in ("gate_proj", "up_proj")}
        mlp["down_proj"] = (self.hidden, self.inner)
        return {f"self_attn.{n}": s for n, s in attention.items()} | {f"mlp.{n}": s for n, s in mlp.items()}

    def modules(self) -> Iterator[tuple[int, str, tuple[int, int]]]:
        """Layer, projection with its block, shape."""
        for layer in range(self.layers):
            for name, shape in self.shapes().items():
                yield layer, name, shape

    def factors(self, expert: int, layer: int, name: str) -> tuple[Tensor, Tensor]:
        """A (r, n) and B (m, r) of one module, for the scale alpha / r = 2.

        Args:
            expert: from 0.
            layer: from 0.
            name: projection with its block.

        Returns:
            A common part, its directions partly turned per expert, and one of the expert's own; singular values that
            fall over one and a half decades.
        """
        m, n = self.shapes()[name]
        r, projection = self.rank, name.rpartition(".")[2]
        common = stream(self.seed, "shared", layer, projection)
        own = stream(self.seed, expert, layer, projection, r)
        A_common = torch.randn(128, n, generator=common)[:r]  # 128: the same for every rank up to it
        B_common = torch.randn(m, 128, generator=common)[:, :r]
        A = torch.randn(r, n, generator=own)
        B = torch.randn(m, r, generator=own)
        sign = torch.where(torch.rand(r, generator=own) < self.flipped, -1.0, 1.0)
        rest = (1 - self.shared**2) ** 0.5
        fall = torch.logspace(0, -1.5, r)
        A = self.shared * A_common + rest * A
        B = (self.shared * B_common * sign + rest * B) * fall
        return A.contiguous(), (B * (self.delta_rms / (2.0 * fall.square().sum().sqrt()))).contiguous()


def stream(*key: object) -> torch.Generator:
    """Random numbers that are a function of the key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def tensor_name(layer: int, name: str, side: str) -> str:
    """PEFT's name of a factor."""
    return f"base_model.model.model.layers.{layer}.{name}.lora_{side}.weight"


def lora_config(work: MergeWork) -> dict[str, object]:
    """PEFT's adapter_config.json."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": work.rank,
        "lora_alpha": 2 * work.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(name.rpartition(".")[2] for name in work.shapes()),
        "inference_mode": True,
        "use_rslora": False,
    }


def write_experts(work: MergeWork, folder: Path) -> list[Path]:
    """Write the adapters as PEFT lays them out; returns their folders."""
    found = []
    for expert in range(work.experts):
        place = folder / f"expert{expert}"
        place.mkdir(parents=True)
        tensors = {}
        for layer, name, _ in work.modules():
            A, B = work.factors(expert, layer, name)
            tensors |= {tensor_name(layer, name, "A"): A, tensor_name(layer, name, "B"): B}
        save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
        (place / "adapter_config.json").write_text(json.dumps(lora_config(work), indent=1))
        found.append(place)
    return found


def write_base(work: MergeWork, folder: Path) -> Path:
    """Write a random bf16 checkpoint of the sizes, for a peer that merges dense weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=work.vocabulary,
        hidden_size=work.hidden,
        intermediate_size=work.inner,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        num_key_value_heads=work.kv_heads,
        tie_word_embeddings=False,
        max_position_embeddings=256,
    )
    torch.manual_seed(work.seed)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder

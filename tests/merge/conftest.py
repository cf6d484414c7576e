"""Experts for the merge tests: seeded random LoRAs over two layers, on disk or in memory."""

import json

import pytest
import torch

from artifacts.adapter_files import write_adapter
from merge.factors import Factors, TaskVector

BASE = "b" * 64
READS = {"tokenizer_sha256": "1" * 64, "chat_template_sha256": "2" * 64}
SHAPES = {"model.layers.0.q_proj": (24, 16), "model.layers.1.down_proj": (12, 30)}


def lora_tensors(seed, ranks=(4, 4), scale=1.0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for rank, (module, (m, n)) in zip(ranks, shapes.items(), strict=True):
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, n, generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(m, rank, generator=generator) * scale
    return tensors


def lora_config(rank=4, alpha=8, **changes):
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(SHAPES),
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
    } | changes


@pytest.fixture
def expert(tmp_path):
    """Write an adapter folder: expert("name", seed=1, ranks=(4, 4), scale=1.0, manifest={...}, use_rslora=True)."""

    def make(name, *, seed=0, ranks=(4, 4), scale=1.0, manifest=None, alpha=8, **config):
        folder = tmp_path / name / "adapter"
        pattern = {"layers.1.down_proj": ranks[1]} if ranks[1] != ranks[0] else {}
        write_adapter(
            folder,
            lora_config(ranks[0], alpha, rank_pattern=pattern) | config,
            lora_tensors(seed, ranks, scale),
            {"kind": "dsa", "base_fingerprint": BASE, "specialty": name, "extra": READS} | (manifest or {}),
        )
        return folder

    return make


@pytest.fixture
def vector():
    """A task vector in memory: vector(seed, rank=4, scale=1.0)."""

    def make(seed, rank=4, scale=1.0):
        tensors = lora_tensors(seed, (rank, rank), scale)
        return TaskVector(
            {
                m: Factors(
                    tensors[f"base_model.model.{m}.lora_A.weight"], tensors[f"base_model.model.{m}.lora_B.weight"]
                )
                for m in SHAPES
            }
        )

    return make


@pytest.fixture
def rewrite():
    """Change a JSON file in an adapter folder: rewrite(path, key=value)."""

    def change(path, **changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change

"""PEFT's side of the merge benchmark: `add_weighted_adapter` on a model whose base weights take no memory.

Only the merge itself is timed: loading the experts and writing the result come on top for a user.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from benchmarks.clock import PeakMemory, versions
from benchmarks.merge_inputs import MergeWork, tensor_name
from benchmarks.merge_work import DENSITY


def hollow_linear(m: int, n: int) -> nn.Linear:
    """A linear layer whose weight is one zero seen (m, n) times."""
    layer = nn.Linear(1, 1, bias=False)
    layer.in_features, layer.out_features = n, m
    layer.weight = nn.Parameter(torch.zeros(1, 1).expand(m, n), requires_grad=False)
    return layer


def skeleton(work: MergeWork) -> nn.Module:
    """The modules that the experts change, under the names that they have in the model."""
    root = nn.Module()
    for layer, name, shape in work.modules():
        *path, last = f"model.layers.{layer}.{name}".split(".")
        place = root
        for step in path:
            if not hasattr(place, step):
                place.add_module(step, nn.Module())
            place = getattr(place, step)
        place.add_module(last, hollow_linear(*shape))
    return root


def with_experts(work: MergeWork, inputs: Path) -> PeftModel:
    """The skeleton with every expert loaded."""
    targets = [name.rpartition(".")[2] for name in work.shapes()]
    config = LoraConfig(r=work.rank, lora_alpha=2 * work.rank, target_modules=targets, lora_dropout=0.0)
    model = get_peft_model(skeleton(work), config, adapter_name="expert0")
    for expert in range(1, work.experts):
        model.add_adapter(f"expert{expert}", config)
    held = dict(model.named_parameters())
    for expert in range(work.experts):
        with safe_open(inputs / f"expert{expert}" / "adapter_model.safetensors", "pt") as file, torch.no_grad():
            for layer, name, _ in work.modules():
                for side in "AB":
                    stored = tensor_name(layer, name, side)
                    held[stored.replace(".weight", f".expert{expert}.weight")].copy_(file.get_tensor(stored))
    return model


def main(given: list[str] | None = None) -> None:
    """Merge once and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--work", choices=["peft_svd", "peft_ties_svd"], required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work = MergeWork(layers=chosen.layers)
    model = with_experts(work, chosen.inputs)
    names = [f"expert{expert}" for expert in range(work.experts)]
    kind = chosen.work.removeprefix("peft_")
    density = {"density": DENSITY} if kind == "ties_svd" else {}
    with PeakMemory() as memory, torch.no_grad():
        started = time.process_time()
        # Thin SVDs: PEFT's default computes full ones, which takes longer still.
        model.add_weighted_adapter(
            names, [1.0] * len(names), "merged", combination_type=kind, svd_rank=work.rank,
            svd_full_matrices=False, **density,
        )  # fmt: skip
        cpu_s = time.process_time() - started
    merged = {name: value for name, value in model.named_parameters() if ".merged." in name}
    save_file(
        {name.replace(".merged", ""): value.detach().contiguous() for name, value in merged.items()},
        chosen.folder / "merged.safetensors",
    )
    result = {
        "cpu_s": cpu_s,
        "peak_added_mib": memory.added_mib,
        "lora": str(chosen.folder / "merged.safetensors"),
        "versions": versions("torch", "peft"),
    }
    chosen.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()

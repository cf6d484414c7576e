"""A merge of four experts on the card, beside the processor: the merge's own functions on factors that lie there.

Layers are alike, so one layer's factors stand for all of them: no time depends on their values.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.lines import now
from benchmarks.gpu.sizes import Size
from benchmarks.merge_inputs import MergeWork
from merge.factors import Factors, TaskVector
from merge.methods.interface import Experts, MergeMethod
from merge.methods.task_arithmetic import TaskArithmetic
from merge.methods.ties import Ties
from merge.truncation import cut

METHODS: dict[str, MergeMethod] = {
    "task_arithmetic": TaskArithmetic(),
    "ties": Ties(Ties.Config(trim="tensor")),
}


def work_of(size: Size) -> MergeWork:
    """Four experts of a size's decoder."""
    s = size.shape
    parts = {"hidden": s.hidden, "inner": s.intermediate, "heads": s.heads, "kv_heads": s.kv_heads}
    return MergeWork(layers=size.merge_layers, rank=size.merge_rank, **parts)


def layer_of(work: MergeWork) -> list[dict[str, Factors]]:
    """Each expert's factors of the first layer, by projection."""
    return [{name: Factors(*work.factors(expert, 0, name)) for name in work.shapes()} for expert in range(work.experts)]


def experts_of(layer: list[dict[str, Factors]], layers: int, device: str) -> Experts:
    """Experts of so many layers, all of which share one layer's tensors."""
    vectors = {}
    for number, own in enumerate(layer):
        held = {name: Factors(factors.A.to(device), factors.B.to(device)) for name, factors in own.items()}
        names = {f"layers.{index}.{name}": factors for index in range(layers) for name, factors in held.items()}
        vectors[f"expert{number}"] = TaskVector(names)
    return Experts(vectors)


def merge(method: MergeMethod, experts: Experts, rank: int, device: str) -> tuple[float, dict[str, Factors]]:
    """Seconds of a merge and its cut to a rank, and the first layer's factors."""
    first = {}
    with torch.device(device):  # what the merge makes anew stands beside the factors
        began = now(device)
        module = method.merge(experts)
        for name in experts.modules:
            factors, _, _ = cut(module(name).value, rank, [f.rank for f in experts.factors(name)], experts.cores(name))
            if name.startswith("layers.0."):
                first[name] = factors
        return now(device) - began, first


def beside_the_processor(size: Size, device: str, name: str) -> dict[str, Any]:
    """All layers on the device, some on the processor, and how far the first layer's results differ."""
    work, method = work_of(size), METHODS[name]
    layer = layer_of(work)
    merge(method, experts_of(layer, 1, device), work.rank, device)  # warm-up
    seconds, ours = merge(method, experts_of(layer, work.layers, device), work.rank, device)
    few = size.merge_layers_on_processor
    processor, theirs = merge(method, experts_of(layer, few, "cpu"), work.rank, "cpu")
    return {
        "seconds": round(seconds, 3),
        "method": name,
        "layers": work.layers,
        "experts": work.experts,
        "rank": work.rank,
        "s_per_layer": round(seconds / work.layers, 4),
        "processor_layers": few,
        "processor_s_per_layer": round(processor / few, 4),
        "processor_threads": torch.get_num_threads(),
        "largest_difference": max(difference(ours[module], theirs[module]) for module in theirs),
    }


def difference(left: Factors, right: Factors) -> float:
    """|D - D'| / |D'| in the Frobenius norm of two updates, from their factors alone."""
    A = torch.cat([left.A.cpu(), right.A]).double()
    B = torch.cat([left.B.cpu(), -right.B], dim=1).double()
    apart = ((B.T @ B) * (A @ A.T)).sum().clamp_min(0).sqrt()
    own = right.B.double(), right.A.double()
    return float(apart / ((own[0].T @ own[0]) * (own[1] @ own[1].T)).sum().sqrt())

"""Experts conditioned before a merge: each distilled into an update of the smallest expert's norm, and surer of itself.

Source: DisTaC, arXiv:2508.01148, for what spoils merges (norms that differ, experts that are unsure) and for the cure,
    distillation into a scaled copy on unlabelled questions. Its text was not at hand: losses and settings are ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from answering.scalars import Case, Mixture
from artifacts.adapter_checks import READING
from artifacts.adapter_files import acting_sha256, open_adapter, read_manifest, result_of, write_adapter
from guards.ranges import Ranged, above, at_least
from lightning_modules.policy import Policy
from merge.factors import Factors, TaskVector, add, inner_product
from merge.peft_layout import merged_config, task_vector_of, tensor_name


@dataclass(frozen=True)
class Conditioning(Ranged):
    """How experts are conditioned."""

    sharpen: Annotated[float, at_least(1)] = 2.0
    """Times the expert's logits that the student's shall be, at least 1; 1 keeps the expert's confidence."""
    anchor: Annotated[float, at_least(0)] = 0.1
    """Weight of the student's squared distance from the scaled expert, over that one's squared norm; at least 0."""
    steps: Annotated[int, at_least(1)] = 40
    """Steps of Adam per expert, at least 1."""
    rate: Annotated[float, above(0)] = 1e-3
    """Learning rate, above 0; it falls to 0 along a line."""
    questions_per_step: Annotated[int, at_least(1)] = 8
    """Training questions in a step, at least 1; they come in turn."""

    @property
    def name(self) -> str:
        """For a folder: other settings, another one."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def norm(vector: Mapping[str, Factors]) -> float:
    """Frobenius norm of a whole update."""
    return sum(inner_product(vector[name], vector[name]) for name in vector) ** 0.5


def squared_distance(A: Tensor, B: Tensor, anchor: Factors) -> Tensor:
    """|B A - B_0 A_0|^2 from products of the ranks' size alone, differentiable; fp64.

    Args:
        A: (r, n).
        B: (m, r).
        anchor: B_0 A_0, of any rank.
    """
    stacked_A = torch.cat([A, anchor.A.to(A)]).double()
    stacked_B = torch.cat([B, -anchor.B.to(B)], dim=1).double()
    return ((stacked_A @ stacked_A.T) * (stacked_B.T @ stacked_B)).sum()


def distilled(
    policy: Policy, expert: TaskVector, scale: float, cases: Sequence[Case], settings: Conditioning
) -> tuple[dict[str, Factors], tuple[float, float]]:
    """Distil an expert into an update that starts as a scaled copy of it.

        minimise  mean KL(softmax(z) || softmax(sharpen z_expert)) + anchor |D - scale D_expert|^2 / |scale D_expert|^2

    Args:
        policy: the bare base.
        expert: its update.
        scale: of the copy, above 0.
        cases: training questions with the expert's replies.
        settings: of the descent.

    Returns:
        Module -> factors of the student; and the KL over all cases, before and after.
    """
    mixture = Mixture(policy, {"expert": expert, "student": scale * expert}, "expert")
    start = {name: (A.clone(), B.clone(), int(ranks[0])) for name, (A, B, ranks) in mixture.factors.items()}
    leaves = [factor.requires_grad_() for A, B, _ in mixture.factors.values() for factor in (A, B)]
    # The expert's own part stands beside the student's, under a scalar of 0: its gradient, and so Adam's step, is 0.
    adam = torch.optim.Adam(leaves, lr=settings.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / settings.steps)
    student, size, whole = mixture.expert(1), settings.questions_per_step, (scale * norm(expert)) ** 2

    def students() -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (A[start[name][2] :], B[:, start[name][2] :]) for name, (A, B, _) in mixture.factors.items()}

    def measured() -> float:
        parts = [cases[i : i + size] for i in range(0, len(cases), size)]
        return sum(len(p) * mixture.kl(p, 0, student, sharpen=settings.sharpen) for p in parts) / len(cases)

    with mixture.beside():
        before = measured()
        for step in range(settings.steps):
            adam.zero_grad()
            turn = [cases[(step * size + i) % len(cases)] for i in range(min(size, len(cases)))]
            mixture.kl(turn, 0, student, weight=1.0, sharpen=settings.sharpen)
            if settings.anchor:
                anchors = {n: Factors(A[r:], B[:, r:]) for n, (A, B, r) in start.items()}
                away = sum(squared_distance(A, B, anchors[name]) for name, (A, B) in students().items())
                (settings.anchor / whole * away).backward()
            adam.step()
            falling.step()
        after = measured()
    found = {n: Factors(A.detach().cpu().clone(), B.detach().cpu().clone()) for n, (A, B) in students().items()}
    return found, (before, after)


def conditioned(
    experts: Mapping[str, Sequence[Path]],
    folder: Path,
    settings: Conditioning,
    made_from: Mapping[str, Any],
    cases: Callable[[], tuple[Policy, Mapping[str, Sequence[Case]]]],
    say: Callable[[str], None] = print,
) -> dict[str, list[Path]]:
    """All experts conditioned, each an adapter folder that is whole or absent; those of the same making are kept.

    Args:
        experts: specialty -> adapter folders that together are its expert.
        folder: gets a folder per specialty.
        settings: of the descent.
        made_from: what the result depends on besides experts and settings, in JSON's types.
        cases: the bare base, and specialty -> its questions with its expert's replies.
        say: is told what was done.

    Returns:
        Specialty -> its adapter folder, as `experts` is.

    Raises:
        AdapterError: an adapter is damaged.
        ValueError: an expert is zero.
    """
    told = {name: [acting_sha256(path) for path in chain] for name, chain in sorted(experts.items())}
    asked: tuple[Policy, Mapping[str, Sequence[Case]]] | None = None
    vectors = {
        name: add([task_vector_of(open_adapter(path, base_fingerprint=None), str(path)) for path in chain])
        for name, chain in sorted(experts.items())
    }
    norms = {name: norm(vector) for name, vector in vectors.items()}
    if still := [name for name, own in norms.items() if own == 0]:
        raise ValueError(f"{still[0]}: this expert is zero, so there is nothing to condition; leave it out")
    for name, vector in vectors.items():
        identity = json.dumps([name, told, asdict(settings), made_from], sort_keys=True)
        sha256 = hashlib.sha256(identity.encode()).hexdigest()
        found = result_of(folder / name)
        if found is not None and found["config_sha256"] == sha256:
            continue
        asked = asked or cases()
        scale = min(norms.values()) / norms[name]
        student, (before, after) = distilled(asked[0], vector, scale, asked[1][name], settings)
        tensors = {tensor_name(module, side): getattr(f, side) for module, f in student.items() for side in "AB"}
        config = open_adapter(experts[name][-1], base_fingerprint=None).config
        last = read_manifest(experts[name][-1])
        size = norm(student)
        manifest = {
            "kind": "conditioned",
            "base_fingerprint": last["base_fingerprint"],
            "specialty": name,
            "config_sha256": sha256,
            "metrics": {"norm": size, "norm_of_expert": norms[name], "kl_before": before, "kl_after": after},
            "extra": {key: value for key, value in (last["extra"] or {}).items() if key in (*READING, "base")},
        }
        write_adapter(folder / name, merged_config({m: f.rank for m, f in student.items()}, config), tensors, manifest)
        say(f"conditioned {name}: norm {norms[name]:.3g} to {size:.3g}, KL {before:.3g} to {after:.3g} nats a token")
    return {name: [folder / name] for name in vectors}

"""Fewer directions: the best approximation of an update at a given rank, and how much of it that keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge.factors import Factors, TaskVector

RELATIVE_ZERO = 1e-10
"""Singular values below this share of the largest are rounding noise of fp32 inputs, not directions."""


@dataclass(frozen=True)
class RetainedEnergy:
    """|D_kept|^2 / |D|^2 in the Frobenius norm, in [0, 1]; 1 for an update that is zero."""

    per_module: dict[str, float]
    total: float

    @classmethod
    def of(cls, kept: dict[str, float], total: dict[str, float]) -> RetainedEnergy:
        """From the squared norms after and before, per module."""

        def share(part: float, whole: float) -> float:
            return part / whole if whole > 0 else 1.0

        per_module = {name: share(kept[name], total[name]) for name in sorted(total)}
        return cls(per_module, share(sum(kept.values()), sum(total.values())))


def parse_rank(rank: int | str) -> int | str | float:
    """Read a rank setting: an integer, "sum", "max", or "energy:x", which comes back as the float x.

    Raises:
        ValueError: names the allowed forms.
    """
    if isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1:
        return rank
    if rank in ("sum", "max"):
        return rank
    if isinstance(rank, str) and rank.startswith("energy:"):
        try:
            share = float(rank.removeprefix("energy:"))
        except ValueError:
            share = 0.0
        if 0 < share <= 1:
            return share
    raise ValueError(f'rank={rank!r}: expected an integer of at least 1, "sum", "max", or "energy:0.95" (in (0, 1])')


def choose_rank(rank: int | str, singular_values: Tensor, expert_ranks: Sequence[int]) -> int:
    """How many directions to keep.

    Args:
        rank: as `parse_rank` accepts it.
        singular_values: (p,) fp64, descending.
        expert_ranks: ranks of the experts in this module, for "sum" and "max".

    Returns:
        At least 1, at most the number of singular values that are not rounding noise.
    """
    wish = parse_rank(rank)
    present = int((singular_values > RELATIVE_ZERO * singular_values[0]).sum())
    if isinstance(wish, float):
        energy = singular_values[:present].square().cumsum(0)
        # The last term is the total itself, so that x = 1 is met however the sum rounds.
        wish = int((energy < wish * energy[-1]).sum()) + 1 if present else 1
    elif wish == "sum":
        wish = sum(expert_ranks)
    elif wish == "max":
        wish = max(expert_ranks)
    return max(1, min(wish, present))


def singular_triples(factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of B A at the cost of two thin QRs and one small SVD.

        B = Q_B R_B,  A^T = Q_A R_A,  R_B R_A^T = U S V^T   =>   B A = (Q_B U) S (Q_A V)^T

    Returns:
        U (m, p), S (p,) descending, V (n, p), fp64, p = min(r, m, n).

    Source: merging in the space of the factors, arXiv:2509.17786, section 3.
    """
    Q_B, R_B = torch.linalg.qr(factors.B.double())
    Q_A, R_A = torch.linalg.qr(factors.A.double().T)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    return Q_B @ U, S, Q_A @ Vh.T


def balanced(U: Tensor, S: Tensor, V: Tensor) -> Factors:
    """U S V^T as factors with sqrt(S) on either side, so that neither under- or overflows in half precision."""
    root = S.sqrt()
    return Factors((V * root).T.float().contiguous(), (U * root).float().contiguous())


def truncate(
    vector: TaskVector, rank: int | str, expert_ranks: dict[str, Sequence[int]] | None = None
) -> tuple[TaskVector, RetainedEnergy]:
    """Cut every module to a rank, optimally in the Frobenius norm.

    Args:
        vector: of any rank.
        rank: an integer, "sum" (all there is, exact), "max", or "energy:x": per module the fewest directions that
            keep the share x of the squared norm.
        expert_ranks: ranks of the merged experts per module; None means the vector's own rank.

    Returns:
        The cut task vector, balanced, and the energy it keeps.

    Raises:
        ValueError: `rank` has none of the allowed forms.

    Source: Eckart and Young, 1936.
    """
    parse_rank(rank)
    cut, kept, total = {}, {}, {}
    for name, factors in vector.items():
        U, S, V = singular_triples(factors)
        k = choose_rank(rank, S, expert_ranks[name] if expert_ranks else [factors.rank])
        cut[name] = balanced(U[:, :k], S[:k], V[:, :k])
        kept[name], total[name] = S[:k].square().sum().item(), S.square().sum().item()
    return TaskVector(cut), RetainedEnergy.of(kept, total)


def compress(delta: Tensor, rank: int | str, expert_ranks: Sequence[int]) -> tuple[Factors, float, float]:
    """Approximate one dense update by factors, optimally in the Frobenius norm.

    Args:
        delta: (m, n) fp32.
        rank: as for `truncate`.
        expert_ranks: ranks of the merged experts in this module.

    Returns:
        The factors, and the squared norms after and before.

    Raises:
        ValueError: `rank` has none of the allowed forms.

    Choice: the directions are eigenvectors of the smaller Gram matrix in fp64, some five times faster than an SVD. The
        squaring costs singular values below 1e-8 of the largest, which an fp32 matrix does not resolve either; and
        the result is a projection of `delta` on the directions kept, so their values need no precision.
    """
    dense = delta.double()
    wide = dense.shape[0] <= dense.shape[1]
    D = dense if wide else dense.T  # (p, q), p <= q
    eigenvalues, basis = torch.linalg.eigh(D @ D.T)  # ascending
    S = eigenvalues.flip(0).clamp_min(0).sqrt()
    k = choose_rank(rank, S, expert_ranks)
    U = basis.flip(1)[:, :k]  # (p, k)
    projected = U.T @ D  # (k, q)
    norms = projected.norm(dim=1)
    V = (projected / norms.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)).T
    factors = balanced(U, norms, V) if wide else balanced(V, norms, U)
    return factors, projected.square().sum().item(), dense.square().sum().item()


def compress_stream(
    stream: Iterable[tuple[str, Tensor]], rank: int | str, expert_ranks: dict[str, Sequence[int]]
) -> tuple[TaskVector, RetainedEnergy]:
    """Compress dense updates one at a time, so that a single one is in memory.

    Args:
        stream: (module name, (m, n) fp32) pairs.
        rank: as for `truncate`.
        expert_ranks: ranks of the merged experts per module.

    Returns:
        The task vector and the energy it keeps.

    Raises:
        ValueError: `rank` has none of the allowed forms.
    """
    parse_rank(rank)
    modules, kept, total = {}, {}, {}
    for name, delta in stream:
        modules[name], kept[name], total[name] = compress(delta, rank, expert_ranks[name])
    return TaskVector(modules), RetainedEnergy.of(kept, total)

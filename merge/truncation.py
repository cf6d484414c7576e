"""Fewer directions: the best approximation of an update at a given rank, and how much of it that keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge.cores import RELATIVE_ZERO, Basis, Core, Cores, singular, squared_sum
from merge.factors import Factors
from merge.products import Mixture, Stack, column_products


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


def balanced(U: Tensor, S: Tensor, V: Tensor) -> Factors:
    """U S V^T as factors with sqrt(S) on either side, so that neither under- or overflows in half precision."""
    root = S.sqrt()
    return Factors((V * root).T.float().contiguous(), (U * root).float().contiguous())


def cut(
    update: Factors | Core | Tensor, rank: int | str, expert_ranks: Sequence[int], joint: Cores | None = None
) -> tuple[Factors, float, float]:
    """Cut one update to a rank, optimally in the Frobenius norm, or nearly where that is searched for.

    Args:
        update: factors, a core between the experts' bases, or a dense (m, n) fp32 matrix.
        rank: an integer, "sum" (all that the experts span, exact for methods that stay low-rank), "max", or "energy:x":
            the fewest directions that keep the share x of the squared norm.
        expert_ranks: ranks of the merged experts in this module, for "sum" and "max".
        joint: the experts; where a dense update is much larger than their joint rank R and the rank asked for is at
            most R / 2, the search for its leading directions starts from theirs instead of looking at all of them.

    Returns:
        The factors, balanced, and the squared norms after and before.

    Raises:
        ValueError: `rank` has none of the allowed forms.

    Source: Eckart and Young, 1936.
    """
    if isinstance(update, Tensor):
        wish = max(expert_ranks) if rank == "max" else rank
        if joint is not None and isinstance(wish, int) and 2 * wish <= joint.cores.shape[2] <= min(update.shape) // 4:
            return compress_from(update, wish, leading_inputs(joint, wish + max(wish // 2, 16)))
        return compress(update, rank, expert_ranks)
    of_experts = isinstance(update, Core)
    if isinstance(update, Factors):
        found = Cores.of(Stack.of([update]))
        update = Core(found.left, found.cores[0], found.right)
    wish = max(expert_ranks) if rank == "max" else rank
    U, S, V = update.triples or singular(update.core, wish if isinstance(wish, int) else None)
    whole = (S if len(S) == min(update.core.shape) else update.core).square().sum().item()
    k = choose_rank(rank, S, expert_ranks)
    root = S[:k].sqrt()  # on either side, so that neither under- or overflows in half precision
    turned_A, turned_B = V[:, :k] * root, U[:, :k] * root
    A, B = (update.right @ turned_A).T.float().contiguous(), (update.left @ turned_B).float().contiguous()
    factors = Factors(A, B)
    if of_experts and update.left.own and update.right.own:
        factors = Mixture(A, B, update.right.mix @ turned_A, update.left.mix @ turned_B)
    return factors, S[:k].square().sum().item(), whole


def compress(delta: Tensor, rank: int | str, expert_ranks: Sequence[int]) -> tuple[Factors, float, float]:
    """Approximate one dense update by factors, optimally in the Frobenius norm.

    Args:
        delta: (m, n) fp32.
        rank: as for `cut`.
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


def leading_inputs(joint: Cores, count: int) -> Tensor:
    """The directions that the experts together read most: (n, count) fp32, orthonormal."""
    products = squared_sum([(a, b) for b, a in joint.pairs])
    return (joint.right @ torch.linalg.eigh(products)[1].flip(1)[:, :count]).float().contiguous()


def compress_from(
    delta: Tensor, rank: int, start: Tensor, *, tolerance: float = 3e-4, most: int = 24
) -> tuple[Factors, float, float]:
    """Approximate one dense update by factors, looking for its leading directions from a good guess.

        Q = basis(D Q), then Q = basis(D^T Q), and so on from Q = start;   D ~ (D Q) Q^T, cut to the rank

    Args:
        delta: (m, n) fp32.
        rank: k, below the columns of `start`.
        start: (n, p), orthonormal.
        tolerance: share of the energy that further steps may be expected to bring, from the last two steps' gains.
        most: steps at most.

    Returns:
        The factors, and the squared norms after and before, both exact for the factors returned.

    Source: randomised range finding, Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4.
    Choice: the experts' inputs instead of random numbers as the start: an update made of the experts lies near them,
        and the same update gives the same bytes.
    """
    D, Q, small, across = delta, start, delta @ start, False
    E, V = torch.linalg.eigh(column_products(small))
    gain = math.inf
    for _ in range(most):
        D, Q, across = D.T, Basis.of(small)[0].dense().float(), not across
        small, kept, last = D @ Q, E[-rank:].sum().item(), gain
        E, V = torch.linalg.eigh(column_products(small))
        gain = E[-rank:].sum().item() - kept
        # Gains that go on shrinking as they did bring gain^2 / (last - gain) more.
        if gain <= 0 or (gain < last < math.inf and gain * gain <= tolerance * kept * (last - gain)):
            break
    # Singular vectors from the Gram matrix: the columns kept are projections, their values need no precision.
    basis = V.flip(1)[:, :rank]
    projected = small.double() @ basis  # of D's outputs, (m or n, k)
    norms = projected.norm(dim=0)
    sides = projected / norms.clamp_min(torch.finfo(torch.float64).tiny), Q.double() @ basis
    U, W = sides[::-1] if across else sides
    return balanced(U, norms, W), norms.square().sum().item(), delta.norm(dim=1).double().square().sum().item()

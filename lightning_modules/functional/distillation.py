"""Distillation of a student from a teacher: per-token KL over the vocabulary, and from drawn tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.functional.scoring import CHUNK, FLOOR, log_distribution

Head = Callable[[Tensor], Tensor]
"""(n, H) states -> (n, V) logits."""


def distribution_kl(
    hidden: Tensor,
    teacher_hidden: Tensor,
    head: Head,
    teacher_head: Head,
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    forward: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Distance of the student's next-token distribution p to the teacher's q, over the vocabulary, chunk by chunk.

        KL(p ∥ q) = Σ_v p_v (log p_v − log q_v)      ∂ KL / ∂ z_v = p_v (log p_v − log q_v − KL) / temperature
        KL(q ∥ p), forward                           ∂ KL / ∂ z_v = (p_v − q_v) / temperature

    A frozen head runs once: the derivative by each hidden state, (N, H), is computed along with the value and only
    scaled in the backward pass. A head that learns is run again chunk by chunk instead.

    Args:
        hidden: (N, H) float, the student's states.
        teacher_hidden: (N, H') float, the teacher's states at the same places; no gradient goes there.
        head: the student's.
        teacher_head: the teacher's.
        banned: int64 ids whose probability is zero in both.
        temperature: divides the logits of both, above 0.
        forward: take the forward KL, of the teacher's distribution to the student's.
        chunk: places per piece; None fits `scoring.CHUNK`.

    Returns:
        (N,) nats, with gradient by `hidden`, and by the head where that learns.

    Source: GKD, arXiv:2306.13649, equation 5 with reverse or forward KL; where the student drew the samples, their own
        dependence on the weights is left out, as there.
    """
    if hidden.shape[0] == 0:
        return hidden.new_zeros(0)
    probe = head(hidden[:1].detach())
    chunk = max(1, CHUNK // probe.shape[-1]) if chunk is None else chunk
    if torch.is_grad_enabled() and hidden.requires_grad and not probe.requires_grad:
        return _FrozenHead.apply(hidden, teacher_hidden, head, teacher_head, banned, temperature, forward, chunk)
    again = torch.is_grad_enabled() and hidden.shape[0] > chunk
    pieces = [
        checkpoint(_piece_kl, *rows, head, teacher_head, banned, temperature, forward, use_reentrant=False)
        if again
        else _piece_kl(*rows, head, teacher_head, banned, temperature, forward)
        for rows in zip(hidden.split(chunk), teacher_hidden.split(chunk), strict=True)
    ]
    return torch.cat(pieces)


def kl_of(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, V) log-probabilities -> (n,) KL(p ∥ q) in nats, (n, V) p, (n, V) log p − log q; 0 where both are banned."""
    log_ratio = log_p.clamp(min=FLOOR) - log_q.clamp(min=FLOOR)
    p = log_p.exp()
    return (p * log_ratio).sum(-1), p, log_ratio


def _teacher(rows: Tensor, head: Head, banned: Tensor | None, temperature: float) -> Tensor:
    with torch.no_grad():
        return log_distribution(head(rows.detach()), banned, temperature)


def _piece_kl(
    hidden: Tensor,
    teacher_hidden: Tensor,
    head: Head,
    teacher_head: Head,
    banned: Tensor | None,
    temperature: float,
    forward: bool,
) -> Tensor:
    log_p = log_distribution(head(hidden), banned, temperature)
    log_q = _teacher(teacher_hidden, teacher_head, banned, temperature)
    return kl_of(log_q, log_p)[0] if forward else kl_of(log_p, log_q)[0]


class _FrozenHead(torch.autograd.Function):
    """Forward computes the derivatives by the hidden states, backward scales their rows."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        teacher_hidden: Tensor,
        head: Head,
        teacher_head: Head,
        banned: Tensor | None,
        temperature: float,
        forward: bool,
        chunk: int,
    ) -> Tensor:
        values, slopes = [], []
        for rows, theirs in zip(hidden.split(chunk), teacher_hidden.split(chunk), strict=True):
            log_q = _teacher(theirs, teacher_head, banned, temperature)
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                logits = head(rows)
            log_p = log_distribution(logits.detach(), banned, temperature)
            if forward:
                kl, q, _ = kl_of(log_q, log_p)
                by_logits = log_p.exp().sub_(q).div_(temperature)
            else:
                kl, p, log_ratio = kl_of(log_p, log_q)
                by_logits = p.mul_(log_ratio.sub_(kl[:, None])).div_(temperature)
            slopes.append(torch.autograd.grad(logits, rows, by_logits.to(logits))[0])
            values.append(kl)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (grad[:, None] * slopes).to(slopes), None, None, None, None, None, None, None


def log_ratio_reinforce(logps: Tensor, teacher_logps: Tensor, bound: float) -> Tensor:
    """REINFORCE on the per-token reward log q − log p: on samples of the student its mean gradient is reverse KL's.

        ℓ_t = sg[ clip( log p(y_t) − log q(y_t), −C, C ) ] · log p(y_t)

    Unclipped it is unbiased for the gradient of each token's KL, as E_p[∇ log p] = 0; the value is not the KL.

    Args:
        logps: (B, T) nats, student, with gradient.
        teacher_logps: (B, T) nats.
        bound: C in nats, above 0; infinity clips nothing.

    Source: MOPD, arXiv:2606.30406 (advantage sg[log q − log p], clipped on both sides).
    Choice: no baseline; a token's own KL would be one, and is what the full form computes.
    """
    return (logps - teacher_logps).detach().clamp(-bound, bound) * logps

"""Log-probabilities of given tokens without ever holding a full (B, T, V) tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 2**23
"""Logits that are alive at once: 32 MiB in float32 per copy."""

FLOOR = torch.finfo(torch.float32).min
"""Stands for the logarithm of 0 in an entropy, where it is multiplied by 0."""


def token_logps(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score target tokens and measure the distribution's entropy, in chunks of rows.

    A frozen head runs once: the derivative of each row's log-probability by its hidden state, (N, H), is computed
    along with it and only scaled in the backward pass. A head that learns is recomputed chunk by chunk instead.

    Args:
        hidden: (N, H) float, the states that predict the targets.
        targets: (N,) int64.
        head: (n, H) -> (n, V) logits.
        banned: int64 ids that can be neither sampled nor scored; their logits are minus infinity.
        temperature: divides the logits, above 0.
        chunk: rows per piece; None fits `CHUNK`.
        entropy_gradient: let the entropies carry a gradient too, which costs one more (N, H) tensor.

    Returns:
        (N,) log-probabilities in nats and (N,) entropies in nats, detached unless their gradient was asked for.
    """
    if hidden.shape[0] == 0:
        return hidden.new_zeros(0), hidden.new_zeros(0)
    probe = head(hidden[:1].detach())
    chunk = max(1, CHUNK // probe.shape[-1]) if chunk is None else chunk
    if torch.is_grad_enabled() and hidden.requires_grad and not probe.requires_grad:
        return _FrozenHead.apply(hidden, targets, head, banned, temperature, chunk, entropy_gradient)
    pieces = [
        checkpoint(_piece_logps, rows, ids, head, banned, temperature, entropy_gradient, use_reentrant=False)
        if torch.is_grad_enabled() and hidden.shape[0] > chunk
        else _piece_logps(rows, ids, head, banned, temperature, entropy_gradient)
        for rows, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat([logps for logps, _ in pieces]), torch.cat([entropy for _, entropy in pieces])


@torch.no_grad()
def target_logps(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """The log-probabilities of `token_logps`, to the last bit, without gradient and without the entropies' passes.

    Args:
        hidden: (N, H) float.
        targets: (N,) int64.
        head: (n, H) -> (n, V) logits, which are written over.
        banned: as of `token_logps`; so are the others.
        temperature: above 0.
        chunk: rows per piece.

    Returns:
        (N,) nats.
    """
    if hidden.shape[0] == 0:
        return hidden.new_zeros(0)
    chunk = max(1, CHUNK // head(hidden[:1]).shape[-1]) if chunk is None else chunk
    pieces = [
        log_distribution(head(rows), banned, temperature, spare=True).gather(-1, ids[:, None])[:, 0]
        for rows, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(pieces)


class _FrozenHead(torch.autograd.Function):
    """Forward computes the derivatives by the hidden states, backward scales their rows.

    ∂ log p(target) / ∂ hidden = headᵀ((onehot − p) / temperature)
    ∂ H / ∂ hidden             = headᵀ(−p · (log p + H) / temperature)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        head: Callable[[Tensor], Tensor],
        banned: Tensor | None,
        temperature: float,
        chunk: int,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        logps, entropies, by_logps, by_entropies = [], [], [], []
        for rows, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                logits = head(rows)
            log_probs = log_distribution(logits.detach(), banned, temperature)
            logps.append(log_probs.gather(-1, ids[:, None])[:, 0])
            probabilities = log_probs.exp()
            surprise = log_probs.clamp_(min=FLOOR).mul_(probabilities)  # p log p
            entropies.append(-surprise.sum(-1))
            if entropy_gradient:
                by_logits = surprise.addcmul_(probabilities, entropies[-1][:, None]).neg_().div_(temperature)
                found = torch.autograd.grad(logits, rows, by_logits.to(logits), retain_graph=True)[0]
                by_entropies.append(found)
            by_logits = probabilities.neg_().scatter_add_(1, ids[:, None], torch.ones_like(log_probs[:, :1]))
            if temperature != 1.0:
                by_logits = by_logits.div_(temperature)
            by_logps.append(torch.autograd.grad(logits, rows, by_logits.to(logits))[0])
        ctx.save_for_backward(torch.cat(by_logps), torch.cat(by_entropies) if entropy_gradient else None)
        entropy = torch.cat(entropies)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return torch.cat(logps), entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        by_logps, by_entropies = ctx.saved_tensors
        grad = grad_logps[:, None] * by_logps
        if by_entropies is not None:
            grad = grad + grad_entropy[:, None] * by_entropies
        return grad.to(by_logps), None, None, None, None, None, None


def log_distribution(logits: Tensor, banned: Tensor | None, temperature: float, *, spare: bool = False) -> Tensor:
    """(n, V) log-probabilities in nats after the ban and the temperature; what is sampled is what is scored.

    Args:
        logits: (n, V) float.
        banned: int64 ids whose probability becomes zero, or None.
        temperature: above 0.
        spare: the logits, which have no gradient, are needed no longer and may be written over.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if banned is not None and banned.numel():
        ban = logits.index_fill_ if spare else logits.index_fill
        logits = ban(-1, banned, -torch.inf)
    if temperature != 1.0:
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def _piece_logps(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    banned: Tensor | None,
    temperature: float,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    log_probs = log_distribution(head(hidden), banned, temperature)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(log_probs.exp() * log_probs.clamp(min=FLOOR)).sum(-1)
    return log_probs.gather(-1, targets[:, None])[:, 0], entropy

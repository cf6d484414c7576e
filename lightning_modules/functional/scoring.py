"""Log-probabilities of given tokens without ever holding a full (B, T, V) tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_logps(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    banned: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Score target tokens and measure the distribution's entropy, in chunks of rows.

    The head runs on at most `chunk` rows at once and is recomputed in the backward pass, so peak memory is
    `chunk` x V whatever N is.

    Args:
        hidden: (N, H) float, the states that predict the targets.
        targets: (N,) int64.
        head: (n, H) -> (n, V) logits.
        banned: int64 ids that can be neither sampled nor scored; their logits are minus infinity.
        temperature: divides the logits, above 0.
        chunk: rows per piece.

    Returns:
        (N,) log-probabilities in nats and (N,) entropies in nats (detached).
    """
    if hidden.shape[0] == 0:
        return hidden.new_zeros(0), hidden.new_zeros(0)
    pieces = [
        checkpoint(_piece_logps, rows, ids, head, banned, temperature, use_reentrant=False)
        if torch.is_grad_enabled() and hidden.shape[0] > chunk
        else _piece_logps(rows, ids, head, banned, temperature)
        for rows, ids in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat([logps for logps, _ in pieces]), torch.cat([entropy for _, entropy in pieces])


def log_distribution(logits: Tensor, banned: Tensor | None, temperature: float) -> Tensor:
    """(n, V) log-probabilities in nats after the ban and the temperature; what is sampled is what is scored.

    Args:
        logits: (n, V) float.
        banned: int64 ids whose probability becomes zero, or None.
        temperature: above 0.
    """
    logits = logits.float()
    if banned is not None and banned.numel():
        logits = logits.index_fill(-1, banned, -torch.inf)
    if temperature != 1.0:
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def _piece_logps(
    hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], banned: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    log_probs = log_distribution(head(hidden), banned, temperature)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs.masked_fill(torch.isinf(log_probs), 0)).sum(-1)
    return log_probs.gather(-1, targets[:, None])[:, 0], entropy

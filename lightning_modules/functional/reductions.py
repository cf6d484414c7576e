"""From a (B, T) loss to a number. Denominators come from the whole update, so micro-batches simply add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Denominators:
    """Sizes of a whole update, computed once before it is cut into micro-batches.

    Attributes:
        tokens: completion tokens that count, over all rows.
        sequences: rows with at least one counted token.
        max_tokens: T_max, the generation limit that `constant` divides by.
    """

    tokens: int
    sequences: int
    max_tokens: int

    @classmethod
    def of(cls, lengths: Tensor, max_tokens: int) -> Denominators:
        """Count an update's (B,) completion lengths in tokens."""
        return cls(int(lengths.sum()), int((lengths > 0).sum()), max_tokens)


def token_mean(loss: Tensor, completion_mask: Tensor, sizes: Denominators) -> Tensor:
    """Every token of the update counts the same.

    Args:
        loss: (B, T) float.
        completion_mask: (B, T) bool, True where a token counts.
        sizes: of the whole update.

    Returns:
        () float; the micro-batches' values add up to the update's.

    Source: DAPO, arXiv:2503.14476, section 3.3.
    """
    return masked(loss, completion_mask).sum() / max(sizes.tokens, 1)


def sequence_mean(loss: Tensor, completion_mask: Tensor, sizes: Denominators) -> Tensor:
    """Every completion of the update counts the same, whatever its length. Arguments as `token_mean`.

    Source: GRPO, arXiv:2402.03300, equation 3.
    """
    lengths = completion_mask.sum(dim=1).clamp(min=1)
    return (masked(loss, completion_mask).sum(dim=1) / lengths).sum() / max(sizes.sequences, 1)


def constant(loss: Tensor, completion_mask: Tensor, sizes: Denominators) -> Tensor:
    """Divide by rows times the generation limit: no length bias at all. Arguments as `token_mean`.

    Source: Dr. GRPO, arXiv:2503.20783, section 3.2.
    """
    return masked(loss, completion_mask).sum() / max(sizes.sequences * sizes.max_tokens, 1)


REDUCTIONS = {"token_mean": token_mean, "sequence_mean": sequence_mean, "constant": constant}


def masked(loss: Tensor, completion_mask: Tensor) -> Tensor:
    """Zero outside the mask by selection, not by multiplication, so that padding cannot pass NaN or infinity on."""
    return torch.where(completion_mask, loss, torch.zeros_like(loss))

"""Whether probabilities are what they say: how often what was given p came true."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_calibration_error
from torchmetrics.functional.regression import mean_squared_error

from lightning_modules.functional.preference import fitted_temperature

BINS = 15
"""Of equal width, over [0, 1]."""


@dataclass(frozen=True)
class Calibration:
    """Log-odds against what came of them.

    Attributes:
        n: outcomes.
        accuracy: of those on the side of the odds; even odds are wrong.
        temperature: that makes the outcomes likeliest.
        nats: mean negative log-likelihood as given, without the temperature.
        ece: expected calibration error in [0, 1] as given.
        brier: mean squared error of the probabilities as given; 0.25 knows nothing.
        ece_fitted: at the temperature.
        brier_fitted: at the temperature.
    """

    n: int
    accuracy: float
    temperature: float
    nats: float
    ece: float
    brier: float
    ece_fitted: float
    brier_fitted: float


def calibration(logits: Tensor, outcomes: Tensor, temperature: float | None = None) -> Calibration:
    """Measure calibration.

    Args:
        logits: (N,) log-odds of outcome 1, N at least 1.
        outcomes: (N,) 1 or 0.
        temperature: fitted elsewhere, as on validation data; None fits it here, where it flatters.

    Source: expected calibration error by torchmetrics, after Guo et al. 2017, arXiv:1706.04599: bins of equal width,
        mean distance of frequency and mean probability, weighted by size; Brier 1950, Mon. Weather Rev. 78:1.
    """
    logits, outcomes = logits.double(), outcomes.double()
    fitted = fitted_temperature(logits, outcomes) if temperature is None else temperature
    plain, cooled = (errors(logits / t, outcomes) for t in (1.0, fitted))
    sided = ((logits > 0) & (outcomes > 0.5)) | ((logits < 0) & (outcomes < 0.5))
    nats = F.binary_cross_entropy_with_logits(logits, outcomes)
    return Calibration(len(logits), float(sided.double().mean()), fitted, float(nats), *plain, *cooled)


def errors(logits: Tensor, outcomes: Tensor) -> tuple[float, float]:
    """(expected calibration error, Brier score) of σ(logits)."""
    probabilities = torch.sigmoid(logits)
    ece = binary_calibration_error(probabilities, outcomes.long(), n_bins=BINS, norm="l1")
    return float(ece), float(mean_squared_error(probabilities, outcomes))

"""The same command gives the same numbers, on a GPU too."""

from __future__ import annotations

import os

import torch


def same_numbers() -> None:
    """Let PyTorch choose kernels that give the same bits each time; to be called before anything runs on a GPU.

    Sums by atomic addition, as the backward pass of embeddings has them, differ in their last bits from run to run, and
    a resumed run would not be the uninterrupted one. A Trainer with `deterministic: false` takes this back.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html; cuBLAS needs one of its two fixed workspaces.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads memory before it is written

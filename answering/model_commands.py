"""What `ask`, `chat` and `serve` share: the options that name a model, and the model that they name."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence

import torch
import transformers

from answering.live_model import LiveModel
from answering.trained import Trained
from answering.trained_base import TrainedBase
from lightning_modules.reproducible import same_numbers


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where the base is, where it runs, and how long an answer may be."""
    parser.add_argument(
        "--base", default="", help="checkpoint or folder of a trained base, where it is not found again"
    )
    parser.add_argument("--cpu", action="store_true", help="leave a card alone")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default 1)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="limit of an answer in tokens (default 1024)")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how an answer is drawn."""
    parser.add_argument(
        "--guideline", default="neutral", help="name, or a .yaml file, of the perspective to reason from"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the most likely token")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn, at temperatures above 0")


def live_model(given: Namespace, trained: Sequence[Trained]) -> LiveModel:
    """The base that all of them stand on, which is loaded now, and their adapters held against it.

    Args:
        given: options of `add_model_options`.
        trained: of one base.

    Raises:
        AdapterError: an adapter is damaged, or of another base.
        ValueError: the base is not found, or an option is out of its range.
    """
    if given.threads < 1 or given.max_tokens < 1:
        raise ValueError(f"--threads {given.threads}, --max-tokens {given.max_tokens}: each must be at least 1")
    same_numbers()  # as the examination has them
    torch.set_num_threads(given.threads)
    transformers.utils.logging.disable_progress_bar()
    base = next((member for member in trained if member.adapters), trained[0])
    chains = [member.adapters for member in trained]
    kept = list(dict.fromkeys(path for chain in chains for path in chain)) if len(chains) > 1 else []
    model = LiveModel(TrainedBase(base, accelerator="cpu" if given.cpu else "auto"), kept)
    model.check(path for chain in chains for path in chain)
    return model

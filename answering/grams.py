"""What the modules of a live model read, as Gram matrices, and the files that keep them for merges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from answering.live_model import LiveModel
from artifacts.adapter_files import acting_sha256, open_adapter, read_manifest
from datamodules.batch import BadExampleError, Example
from datamodules.hashes import data_sha256
from datamodules.prompts import VERSION
from lightning_modules.policy import Policy
from merge.grams import BUDGET_MIB, FILE, made_before, write_grams
from merge.peft_layout import task_vector_of

ROWS_AT_ONCE = 24
"""Training rows in one forward pass; changes no result beyond rounding."""
TOKENS_AT_ONCE = 2048
"""Inputs that are held in fp64 at once; changes no result beyond rounding."""


def grams_file(
    model: LiveModel,
    specialty: str,
    adapters: Sequence[Path],
    folder: Path,
    rows: int,
    budget_mib: float = BUDGET_MIB,
) -> Path:
    """What every LoRA module reads on a specialty's training rows, under the specialty's own expert.

        G = mean over tokens of x x^T

    Args:
        model: the base beneath the expert.
        specialty: whose rows.
        adapters: that together are its expert.
        folder: where the file is kept; one that was made from the same things is used again.
        rows: how many training questions, the first in hash order, each with one of its traces after the neutral
            prompt.
        budget_mib: memory for the matrices that are collected together, see `merge.grams.passes`.

    Returns:
        The safetensors file, for `merge.recipe.Recipe.grams`.

    Raises:
        BadExampleError: there is no training question.
        DamagedError: the file that was made from the same things is not as it was written.

    Source: RegMean, arXiv:2212.09849.
    """
    data = model.context.data(specialty)
    questions = data.splits["train"][:rows]
    if not questions:
        raise BadExampleError(f"specialty {specialty!r}: no training question to collect Gram matrices on")
    made_from = {
        "adapters": json.dumps([acting_sha256(path) for path in adapters]),
        "base": read_manifest(adapters[0])["base_fingerprint"],
        "data": data_sha256(data, "train"),
        "rows": str(len(questions)),
        "prompts": VERSION,
        "answer_with": data.config.answer_with,
    }
    if not made_before(folder, made_from):
        with model.acting(adapters) as policy:

            def collect(names: Sequence[str]) -> dict[str, Tensor]:
                return input_grams(policy, questions, names, data.config.answer_with)

            write_grams(folder, sizes(adapters[0]), collect, made_from, budget_mib=budget_mib)
    return folder / FILE


def sizes(adapter: Path) -> dict[str, int]:
    """The modules that an adapter changes, and how many inputs each has."""
    vector = task_vector_of(open_adapter(adapter, base_fingerprint=None), str(adapter))
    return {module: vector[module].shape[1] for module in vector}


def input_grams(
    policy: Policy, questions: Sequence[Example], names: Sequence[str], answer_with: str
) -> dict[str, Tensor]:
    """The mean of x x^T over all tokens of prompts and traces, per module.

    Args:
        policy: as it acts.
        questions: at least one.
        names: modules of the language model; all their matrices are held at once.
        answer_with: what a trace puts into its answer block.

    Returns:
        Module -> (n, n) fp64.

    Raises:
        ValueError: a module reads nothing: the LM head.
    """
    modules = dict(policy.family.model.named_modules())
    sums: dict[str, Tensor] = {}
    tokens = dict.fromkeys(names, 0)

    def collect(name: str, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2)
        if name not in sums:
            sums[name] = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for part in x.split(TOKENS_AT_ONCE):
            wide = part.double()
            sums[name].addmm_(wide.T, wide)
        tokens[name] += len(x)

    hooks = [add_hook(modules[name], name, collect) for name in names]
    try:
        with torch.no_grad():
            for start in range(0, len(questions), ROWS_AT_ONCE):
                part = questions[start : start + ROWS_AT_ONCE]
                prompts = [policy.prompt(example, "") for example in part]
                texts = [trace_of(example, start + i, answer_with) for i, example in enumerate(part)]
                policy.hidden_states(policy.line(prompts, [policy.completion_ids(t)[:-1] if t else [] for t in texts]))
    finally:
        for hook in hooks:
            hook.remove()
    if silent := [name for name in names if not tokens[name]]:
        raise ValueError(
            f"{silent[0]} reads nothing of prompts and traces where Gram matrices are collected, which is before the "
            "LM head; merge these experts by a method that needs none"
        )
    return {name: sums[name].div_(tokens[name]) for name in names}


def add_hook(module: nn.Module, name: str, collect) -> torch.utils.hooks.RemovableHandle:
    """Tell `collect` what a module reads."""
    return module.register_forward_pre_hook(lambda _, inputs: collect(name, inputs))


def trace_of(example: Example, number: int, answer_with: str) -> str:
    """One of the question's worked traces, in turn; empty where it has none."""
    guidelines = sorted(example.reasoning)
    return example.trace(guidelines[number % len(guidelines)], answer_with) if guidelines else ""

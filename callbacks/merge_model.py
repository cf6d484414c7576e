"""The live model beneath a merge: it tells what the modules read, and how well adapters answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from datamodules.batch import BadExampleError, Example
from datamodules.prompts import VERSION
from evaluation.answers import extract
from experiment.provenance import data_sha256
from lightning_modules.policy import Policy
from lightning_modules.rollout import sample
from merge.adapter_files import adapter_sha256, read_adapter, read_manifest
from merge.gates import Answers, Examination
from merge.grams import FILE, metadata_of, write_grams

if TYPE_CHECKING:
    from experiment.context import ExperimentContext

ROWS_AT_ONCE = 24
"""Training rows in one forward pass; changes no result beyond rounding."""


class MergeModel:
    """An experiment's base, loaded when it is first needed, with adapters swapped in and out."""

    def __init__(self, experiment: ExperimentContext, *, max_new_tokens: int = 96, n: int = 60) -> None:
        """Keep the experiment.

        Args:
            experiment: knows base, data and experts.
            max_new_tokens: limit of an answer in tokens.
            n: questions per specialty and split, the first in hash order; 0 takes all.
        """
        self.experiment, self.max_new_tokens, self.n = experiment, max_new_tokens, n
        self._answers: dict[tuple, list[bool]] = {}

    @cached_property
    def loaded(self) -> tuple[Policy, str]:
        """The policy and its base's fingerprint."""
        policy, fingerprint = self.experiment.policy()
        on_gpu = torch.cuda.is_available() and self.experiment.experiment.trainer.get("accelerator") != "cpu"
        policy.to("cuda" if on_gpu else "cpu")
        return policy, fingerprint

    @contextmanager
    def acting(self, adapters: Sequence[Path]) -> Iterator[Policy]:
        """The policy with these adapters folded into its weights, for a while.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        policy, fingerprint = self.loaded
        names = []
        try:
            for path in adapters:
                adapter = read_adapter(path, base_fingerprint=fingerprint)
                name = f"m{len(names)}_{adapter_sha256(path)[:12]}"
                policy.load_adapter(name, adapter.config, adapter.tensors)
                names.append(name)
            policy.activate(names)
            with policy.folded():
                yield policy
        finally:
            for name in names:
                policy.remove_adapter(name)
            policy.activate(())

    def examine(self, adapters: Sequence[Path], specialty: str, split: str, n: int | None = None) -> list[bool]:
        """Right or wrong, question by question: greedy answers to the neutral prompt, read strictly.

        Args:
            adapters: folders of those that act together.
            specialty: whose questions.
            split: of them.
            n: how many, the first in hash order; 0 takes all, None the object's own number.
        """
        n = self.n if n is None else n
        key = (tuple(adapter_sha256(path) for path in adapters), specialty, split, n)
        if key not in self._answers:
            held = self.experiment.data(specialty).splits[split]
            questions = held[:n] if n else held
            with self.acting(adapters) as policy:
                prompts = [policy.prompt(example, "") for example in questions]
                completions = sample(policy, prompts, max_new_tokens=self.max_new_tokens, temperature=0.0)
            self._answers[key] = [
                extract(completion.text, example.options).letter == example.letter
                for example, completion in zip(questions, completions, strict=True)
            ]
        return self._answers[key]

    def examination(self, experts: Mapping[str, Sequence[Path]], n: int) -> Examination | None:
        """The gates' questions to a merged agent: those on which base and expert answer too, of the validation split.

        Args:
            experts: specialty -> adapter folders that together are its expert.
            n: questions per specialty; 0 asks none.

        Returns:
            None where there is nothing to ask.
        """
        asked = {s: chain for s, chain in experts.items() if n and self.experiment.data(s).splits["val"]}
        if not asked:
            return None

        def answers(adapter: Path) -> dict[str, Answers]:
            return {
                s: Answers(*(self.examine(acting, s, "val", n) for acting in ((), chain, (adapter,))))
                for s, chain in asked.items()
            }

        hashes = {s: [adapter_sha256(path) for path in chain] for s, chain in asked.items()}
        return Examination(self.protocol() | {"n": n, "split": "val", "experts": hashes}, answers)

    def protocol(self) -> dict[str, Any]:
        """All that answers depend on besides the adapters and their base."""
        data = {s: self.experiment.data(s) for s in self.experiment.specialties}
        return {
            "n": self.n,
            "max_new_tokens": self.max_new_tokens,
            "prompts": VERSION,
            "data": {s: {split: data_sha256(d, split) for split in ("val", "test")} for s, d in data.items()},
        }

    def grams(self, specialty: str, adapters: Sequence[Path], folder: Path, rows: int) -> Path:
        """What every LoRA module reads on a specialty's training rows, under the specialty's own expert.

            G = mean over tokens of x x^T

        Args:
            specialty: whose rows.
            adapters: that together are its expert.
            folder: where the file is kept; one that was made from the same things is used again.
            rows: how many training questions, the first in hash order, each with one of its traces after the
                neutral prompt.

        Returns:
            The safetensors file, for `merge.recipe.Recipe.grams`.

        Raises:
            BadExampleError: there is no training question.

        Source: RegMean, arXiv:2212.09849.
        """
        data = self.experiment.data(specialty)
        questions = data.splits["train"][:rows]
        if not questions:
            raise BadExampleError(f"specialty {specialty!r}: no training question to collect Gram matrices on")
        made_from = {
            "adapters": json.dumps([adapter_sha256(path) for path in adapters]),
            "base": read_manifest(adapters[0])["base_fingerprint"],
            "data": data_sha256(data, "train"),
            "rows": str(len(questions)),
            "prompts": VERSION,
            "answer_with": data.config.answer_with,
        }
        if metadata_of(folder / FILE) != made_from:
            names = list(self.modules(adapters[0]))
            with self.acting(adapters) as policy:
                collected = input_grams(policy, questions, names, data.config.answer_with)
            write_grams(folder, collected, made_from)
        return folder / FILE

    def modules(self, adapter: Path) -> list[str]:
        """The modules that an adapter changes."""
        tensors = read_adapter(adapter, base_fingerprint=None).tensors
        return sorted({name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for name in tensors})


def input_grams(
    policy: Policy, questions: Sequence[Example], names: Sequence[str], answer_with: str
) -> dict[str, Tensor]:
    """The mean of x x^T over all tokens of prompts and traces, per module.

    Args:
        policy: as it acts.
        questions: at least one.
        names: modules of the language model.
        answer_with: what a trace puts into its answer block.

    Returns:
        Module -> (n, n) fp64.
    """
    modules = dict(policy.family.model.named_modules())
    sums: dict[str, Tensor] = {}
    tokens = dict.fromkeys(names, 0)

    def collect(name: str, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2).double()
        sums[name] = sums.get(name, 0) + x.T @ x
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
    return {name: (sums[name] / tokens[name]).cpu() for name in names}


def add_hook(module: nn.Module, name: str, collect) -> torch.utils.hooks.RemovableHandle:
    """Tell `collect` what a module reads."""
    return module.register_forward_pre_hook(lambda _, inputs: collect(name, inputs))


def trace_of(example: Example, number: int, answer_with: str) -> str:
    """One of the question's worked traces, in turn; empty where it has none."""
    guidelines = sorted(example.reasoning)
    return example.trace(guidelines[number % len(guidelines)], answer_with) if guidelines else ""

"""The live model beneath a merge: it tells what the modules read, and how well adapters answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from answering.input_grams import input_grams
from artifacts.adapter_files import adapter_sha256, open_adapter, read_adapter, read_manifest
from datamodules.batch import BadExampleError, Example
from datamodules.hashes import data_sha256
from datamodules.prompts import VERSION
from evaluation.answers import extract
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import sample
from merge.gates import Answers, Examination
from merge.grams import BUDGET_MIB, FILE, metadata_of, write_grams
from merge.peft_layout import task_vector_of
from merge.smoke import REPLIES, Smoke, kl_to_base, repeats

if TYPE_CHECKING:
    from experiment.context import ExperimentContext


@dataclass(frozen=True)
class Reply:
    """A greedy answer to one question."""

    right: bool
    """Read strictly."""
    ids: tuple[int, ...]
    """Its tokens, the end token included where the model stopped by itself."""


class MergeModel:
    """An experiment's base, loaded when it is first needed, with adapters swapped in and out."""

    def __init__(
        self, experiment: ExperimentContext, *, max_new_tokens: int = 96, n: int = 60, gram_mib: int = BUDGET_MIB
    ) -> None:
        """Keep the experiment.

        Args:
            experiment: knows base, data and experts.
            max_new_tokens: limit of an answer in tokens.
            n: questions per specialty and split, the first in hash order; 0 takes all.
            gram_mib: see `merge.grams.passes`.
        """
        self.experiment, self.max_new_tokens, self.n, self.gram_mib = experiment, max_new_tokens, n, gram_mib
        self._replies: dict[tuple, list[Reply]] = {}
        self._kls: dict[tuple, float] = {}

    @property
    def loaded(self) -> tuple[Policy, str]:
        """The policy and its base's fingerprint."""
        policy, fingerprint = self.experiment.policy()
        policy.bare()
        on_gpu = torch.cuda.is_available() and self.experiment.experiment.trainer.get("accelerator") != "cpu"
        policy.to("cuda" if on_gpu else "cpu")
        return policy, fingerprint

    @contextmanager
    def attached(self, adapters: Sequence[Path]) -> Iterator[Policy]:
        """The policy with these adapters beside its weights, for a while.

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
            yield policy
        finally:
            for name in names:
                policy.remove_adapter(name)
            policy.activate(())

    @contextmanager
    def acting(self, adapters: Sequence[Path]) -> Iterator[Policy]:
        """The policy with these adapters folded into its weights, for a while.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        with self.attached(adapters) as policy, policy.folded():
            yield policy

    def questions(self, specialty: str, split: str, n: int) -> Sequence[Example]:
        """The first n of a split in hash order; 0 takes all."""
        held = self.experiment.data(specialty).splits[split]
        return held[:n] if n else held

    def examine(self, adapters: Sequence[Path], specialty: str, split: str, n: int | None = None) -> list[bool]:
        """Right or wrong, question by question; see `replies`.

        Args:
            adapters: folders of those that act together.
            specialty: whose questions.
            split: of them.
            n: how many, the first in hash order; 0 takes all, None the object's own number.
        """
        return [reply.right for reply in self.replies(adapters, specialty, split, self.n if n is None else n)]

    def replies(self, adapters: Sequence[Path], specialty: str, split: str, n: int) -> list[Reply]:
        """Greedy answers to the neutral prompt; each is given once and remembered. Arguments as of `examine`."""
        key = (tuple(adapter_sha256(path) for path in adapters), specialty, split, n)
        if key not in self._replies:
            questions = self.questions(specialty, split, n)
            with self.acting(adapters) as policy:
                prompts = [policy.prompt(example, "") for example in questions]
                completions = sample(policy, prompts, max_new_tokens=self.max_new_tokens, temperature=0.0)
            self._replies[key] = [
                Reply(extract(completion.text, example.options).letter == example.letter, completion.ids)
                for example, completion in zip(questions, completions, strict=True)
            ]
        return self._replies[key]

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
            return {s: self.compared([adapter], chain, s, n) for s, chain in asked.items()}

        hashes = {s: [adapter_sha256(path) for path in chain] for s, chain in asked.items()}
        how = {"n": n, "split": "val", "experts": hashes, "smoke": REPLIES}
        return Examination(self.protocol() | how, answers)

    def compared(self, merged: Sequence[Path], expert: Sequence[Path], specialty: str, n: int) -> Answers:
        """Base, expert and merged agent on the first n validation questions of a specialty."""
        base, own, agent = (self.replies(adapters, specialty, "val", n) for adapters in ((), expert, merged))
        smoke = Smoke(
            self.kl(merged, expert, specialty, n),
            self.kl(expert, expert, specialty, n),
            [repeats(reply.ids) for reply in agent],
            [repeats(reply.ids) for reply in own],
        )
        return Answers(*([reply.right for reply in replies] for replies in (base, own, agent)), smoke)

    @torch.no_grad()
    def kl(self, adapters: Sequence[Path], expert: Sequence[Path], specialty: str, n: int) -> float:
        """How far adapters take the base's next words, on what the specialty's expert replied.

        Args:
            adapters: folders of those that act together.
            expert: whose replies to the first `merge.smoke.REPLIES` of the questions are read.
            specialty: whose questions.
            n: validation questions that the expert answers.

        Returns:
            Nats per token, the mean over replies; see `merge.smoke.kl_to_base`.

        Choice: the expert's replies, not the agent's own: the same tokens for all that are compared, of the kind that
            the agent is meant to write. On its own loops, an agent and its base agree.
        """
        key = (*(tuple(adapter_sha256(path) for path in chain) for chain in (adapters, expert)), specialty, n)
        if key not in self._kls:
            replies = self.replies(expert, specialty, "val", n)[:REPLIES]
            with self.attached(adapters) as policy:
                asked = zip(self.questions(specialty, "val", n), replies, strict=False)
                self._kls[key] = fmean(reply_kl(policy, policy.prompt(e, ""), reply.ids) for e, reply in asked)
        return self._kls[key]

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
            with self.acting(adapters) as policy:

                def collect(names: Sequence[str]) -> dict[str, Tensor]:
                    return input_grams(policy, questions, names, data.config.answer_with)

                write_grams(folder, self.sizes(adapters[0]), collect, made_from, budget_mib=self.gram_mib)
        return folder / FILE

    def sizes(self, adapter: Path) -> dict[str, int]:
        """The modules that an adapter changes, and how many inputs each has."""
        vector = task_vector_of(open_adapter(adapter, base_fingerprint=None), str(adapter))
        return {module: vector[module].shape[1] for module in vector}


def reply_kl(policy: Policy, prompt: Prompt, ids: Sequence[int]) -> float:
    """KL of a policy as it acts to its bare base on one reply, nats per token."""
    line = policy.line([prompt], [ids[:-1]])  # nothing is predicted from a last token
    logits = policy.family.logits(policy.hidden_states(line)[None, -len(ids) :])
    with policy.acting(()):
        base_logits = policy.family.logits(policy.hidden_states(line)[None, -len(ids) :])
    return kl_to_base(logits, base_logits, torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)).item()

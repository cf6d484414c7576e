"""What merges ask of a live model: how well, and how, base, experts and merged agents answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from answering.asking import answers
from answering.conditioning import Conditioning, conditioned
from answering.context import AskingContext
from answering.countdown import Countdown
from answering.decoding import Decoding
from answering.grams import grams_file
from answering.held_prompts import HeldPrompts
from answering.live_model import LiveModel
from answering.scalars import Case, taught
from artifacts.adapter_files import acting_sha256, adapter_sha256, read_manifest
from artifacts.adoption import Base
from datamodules.batch import BadExampleError, Example
from datamodules.hashes import data_sha256
from datamodules.prompts import NEUTRAL, VERSION
from evaluation.scorers import strict
from lightning_modules.functional.scoring import CHUNK
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from merge.gates import Answers, Examination
from merge.grams import BUDGET_MIB
from merge.methods.learned import LearnedScalars
from merge.smoke import REPLIES, Smoke, kl_to_base, repeats


@dataclass(frozen=True)
class Reply:
    """A greedy answer to one question."""

    right: bool
    """Read strictly."""
    ids: tuple[int, ...]
    """Its tokens, the end token included where the model stopped by itself."""


class MergeAnswers:
    """Greedy answers to the neutral prompt, each given once and remembered; and Gram matrices beside them."""

    def __init__(
        self, context: AskingContext, *, max_new_tokens: int = 96, n: int = 60, gram_mib: float = BUDGET_MIB
    ) -> None:
        """Keep the experiment; its base is loaded when it is first asked something.

        Args:
            context: knows base, data and experts.
            max_new_tokens: limit of an answer in tokens.
            n: questions per specialty and split, the first in hash order; 0 takes all.
            gram_mib: see `merge.grams.passes`.
        """
        self.context, self.n, self.gram_mib = context, n, gram_mib
        self.model = LiveModel(context)
        self.decoding = Decoding(max_new_tokens)
        self._prompts = HeldPrompts()
        self._replies: dict[tuple, list[Reply]] = {}
        self._kls: dict[tuple, float] = {}

    def base(self) -> Base:
        """The bare base, for adapters that come from elsewhere."""
        return self.model.base()

    def questions(self, specialty: str, split: str, n: int) -> Sequence[Example]:
        """The first n of a split in hash order; 0 takes all."""
        held = self.context.data(specialty).splits[split]
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
        """What adapters answer. Arguments as of `examine`.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        key = self.key(adapters, specialty, split, n)
        if key not in self._replies:
            questions = self.questions(specialty, split, n)
            with self.model.acting(adapters) as policy:
                prompts = [self._prompts.of(policy, example, "", specialty) for example in questions]
                given = answers(policy, questions, prompts, NEUTRAL, self.decoding)
            self._replies[key] = [
                Reply(strict(answer.prediction(example)).right, answer.ids)
                for example, answer in zip(questions, given, strict=True)
            ]
        return self._replies[key]

    def key(self, adapters: Sequence[Path], specialty: str, split: str, n: int) -> tuple:
        """What replies are remembered by. Arguments as of `examine`."""
        return tuple(adapter_sha256(path) for path in adapters), specialty, split, n

    def examination(self, experts: Mapping[str, Sequence[Path]], n: int) -> Examination | None:
        """The gates' questions to a merged agent: those on which base and expert answer too, of the validation split.

        Args:
            experts: specialty -> adapter folders that together are its expert.
            n: questions per specialty; 0 asks none.

        Returns:
            None where there is nothing to ask.
        """
        asked = {s: chain for s, chain in experts.items() if n and self.context.data(s).splits["val"]}
        if not asked:
            return None

        def compared(adapter: Path) -> dict[str, Answers]:
            countdown = Countdown("gates", 3 * sum(len(self.questions(s, "val", n)) for s in asked), "answers")
            found = {s: self.compared([adapter], chain, s, n, countdown) for s, chain in asked.items()}
            countdown.close()
            return found

        hashes = {s: [adapter_sha256(path) for path in chain] for s, chain in asked.items()}
        how = {"n": n, "split": "val", "experts": hashes, "smoke": REPLIES}
        return Examination(self.protocol() | how, compared)

    def compared(
        self, merged: Sequence[Path], expert: Sequence[Path], specialty: str, n: int, countdown: Countdown
    ) -> Answers:
        """Base, expert and merged agent on the first n validation questions of a specialty."""
        given = []
        for adapters in ((), expert, merged):
            known = self.key(adapters, specialty, "val", n) in self._replies
            given.append(self.replies(adapters, specialty, "val", n))
            countdown.advance(len(given[-1]), found=known)
        base, own, agent = given
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
            questions = self.questions(specialty, "val", n)[: len(replies)]
            with self.model.attached(adapters) as policy:
                prompts = [self._prompts.of(policy, example, "", specialty) for example in questions]
                rows = zip(prompts, replies, strict=True)
                self._kls[key] = fmean(reply_kl(policy, prompt, reply.ids) for prompt, reply in rows)
        return self._kls[key]

    def protocol(self) -> dict[str, Any]:
        """All that answers depend on besides the adapters and their base."""
        data = {s: self.context.data(s) for s in self.context.specialties}
        return {
            "n": self.n,
            "max_new_tokens": self.decoding.max_new_tokens,
            "prompts": VERSION,
            "data": {s: {split: data_sha256(d, split) for split in ("val", "test")} for s, d in data.items()},
        }

    def taught(
        self, method: LearnedScalars, experts: Mapping[str, Sequence[Path]], file: Path, rows: int
    ) -> LearnedScalars:
        """A method with its scalars, learned where they are missing; see `answering.scalars`.

        Args:
            method: without scalars.
            experts: specialty -> adapter folders that together are its expert.
            file: keeps the scalars.
            rows: training questions per specialty, the first in hash order.

        Raises:
            BadExampleError: a specialty has no training question.
        """
        return taught(method, experts, file, self.lessons(experts, rows), lambda: self.cases(experts, rows))

    def conditioned(
        self, experts: Mapping[str, Sequence[Path]], folder: Path, settings: Conditioning, rows: int
    ) -> dict[str, list[Path]]:
        """Experts made ready to be merged, where they are missing; see `answering.conditioning`.

        Args:
            experts: as of `taught`.
            folder: gets an adapter folder per specialty.
            settings: of the descent.
            rows: as of `taught`.

        Raises:
            BadExampleError: as `taught`.
        """
        return conditioned(experts, folder, settings, self.lessons(experts, rows), lambda: self.cases(experts, rows))

    def lessons(self, experts: Mapping[str, Sequence[Path]], rows: int) -> dict[str, Any]:
        """All that `cases` depend on, in JSON's types.

        Raises:
            BadExampleError: a specialty has no training question.
        """
        names = sorted(experts)
        if empty := [name for name in names if not self.questions(name, "train", rows)]:
            raise BadExampleError(f"specialty {empty[0]!r}: no training question to learn from its expert on")
        return {
            "adapters": {name: [acting_sha256(path) for path in experts[name]] for name in names},
            "base": read_manifest(experts[names[0]][0])["base_fingerprint"],
            "data": {name: data_sha256(self.context.data(name), "train") for name in names},
            "rows": rows,
            "prompts": VERSION,
            "max_new_tokens": self.decoding.max_new_tokens,
        }

    def cases(self, experts: Mapping[str, Sequence[Path]], rows: int) -> tuple[Policy, dict[str, list[Case]]]:
        """The bare base; and every expert's greedy replies to its first training questions, to the neutral prompt."""
        replies = {name: self.replies(chain, name, "train", rows) for name, chain in experts.items()}
        found: dict[str, list[Case]] = {}
        with self.model.attached(()) as policy:
            for name, own in replies.items():
                pairs = zip(self.questions(name, "train", rows), own, strict=True)
                found[name] = [Case(self._prompts.of(policy, e, "", name), reply.ids) for e, reply in pairs]
            return policy, found

    def grams(self, specialty: str, adapters: Sequence[Path], folder: Path, rows: int) -> Path:
        """The file of a specialty's Gram matrices, collected where it is missing; see `answering.grams.grams_file`."""
        return grams_file(self.model, specialty, adapters, folder, rows, self.gram_mib)


def reply_kl(policy: Policy, prompt: Prompt, ids: Sequence[int]) -> float:
    """KL of a policy as it acts to its bare base on one reply, nats per token."""
    line = policy.line([prompt], [ids[:-1]])  # nothing is predicted from a last token
    own = policy.hidden_states(line)[-len(ids) :]
    with policy.acting(()):
        bare = policy.hidden_states(line)[-len(ids) :]
    rows = max(1, CHUNK // policy.family.logits(own[:1]).shape[-1])
    total = 0.0
    for mine, theirs in zip(own.split(rows), bare.split(rows), strict=True):
        logits = policy.family.logits(mine[None])
        with policy.acting(()):
            base_logits = policy.family.logits(theirs[None])
        counted = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        total += kl_to_base(logits, base_logits, counted).item() * len(mine)
    return total / len(ids)

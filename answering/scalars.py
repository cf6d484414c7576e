"""Scalars of a merge, learned on the live model: the merged agent is drawn to each training question's own expert."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from artifacts.adapter_files import open_adapter
from artifacts.manifest import get_text, put_text
from lightning_modules.functional.scoring import CHUNK
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from merge.factors import Factors, add
from merge.methods.learned import LearnedScalars, group_of
from merge.peft_layout import task_vector_of
from merge.smoke import kl_to_base


@dataclass(frozen=True)
class Case:
    """A training question under the neutral prompt, with what its own expert replied."""

    prompt: Prompt
    ids: tuple[int, ...]
    """At least one token."""


class Mixture:
    """The bare base with all experts' updates beside its layers, each under the scalar of its expert and group.

    The scalars (0, …, 1, …, 0) are an expert itself, so that teacher and student are one model.
    """

    def __init__(self, policy: Policy, vectors: Mapping[str, Mapping[str, Factors]], per: str) -> None:
        """Put the factors on the policy's device.

        Args:
            policy: the bare base.
            vectors: expert -> module -> factors, over the same modules.
            per: see `merge.methods.learned.group_of`.
        """
        self.policy, self.names = policy, list(vectors)
        modules = list(next(iter(vectors.values())))
        self.groups = sorted({group_of(module, per) for module in modules})
        self.group = {module: self.groups.index(group_of(module, per)) for module in modules}
        self.scalars = torch.zeros(len(self.names), len(self.groups), device=policy.device)
        self.factors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for module in modules:
            own = [vector[module] for vector in vectors.values()]
            ranks = torch.tensor([f.rank for f in own], device=policy.device)
            A, B = torch.cat([f.A for f in own]), torch.cat([f.B for f in own], dim=1)
            self.factors[module] = A.to(policy.device), B.to(policy.device), ranks

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Let the updates act, under whatever `scalars` are at the time."""
        layers = dict(self.policy.family.model.named_modules())
        hooks = [layers[name].register_forward_hook(self.hook(name)) for name in self.factors]
        self.policy.checkpoint_layers()
        try:
            yield
        finally:
            self.policy.checkpoint_layers(on=False)
            for hook in hooks:
                hook.remove()

    def hook(self, name: str) -> Callable[..., Tensor]:
        """Adds one module's updates to what it gives."""
        (A, B, ranks), group = self.factors[name], self.group[name]

        def added(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            scale = self.scalars[:, group].repeat_interleave(ranks)
            return output + F.linear(F.linear(inputs[0].to(A.dtype), A) * scale, B).to(output.dtype)

        return added

    def expert(self, index: int) -> Tensor:
        """The scalars that are an expert."""
        found = torch.zeros_like(self.scalars)
        found[index] = 1.0
        return found.detach()

    def states(self, cases: Sequence[Case]) -> Tensor:
        """(N, H) states that predict the replies' tokens, row after row."""
        prompts = [replace(case.prompt, shared=0) for case in cases]  # so that each row of the line is whole
        line = self.policy.line(prompts, [case.ids[:-1] for case in cases])
        first = [start + rest - 1 for start, rest in zip(line.packing.row_starts, line.rests, strict=True)]
        places = [place for f, case in zip(first, cases, strict=True) for place in range(f, f + len(case.ids))]
        return self.policy.hidden_states(line)[places]

    def kl(
        self,
        cases: Sequence[Case],
        index: int,
        scalars: Tensor,
        weight: float | None = None,
        sharpen: float = 1.0,
    ) -> float:
        """KL of the agent under some scalars to an expert, on the expert's replies.

            mean over replies of the mean over tokens of sum_v p(v) (log p(v) - log q(v)),   p the agent, q the expert

        Args:
            cases: at least one.
            index: of the expert.
            scalars: (K, groups).
            weight: where given, weight times the slope of this is added to the gradients of `scalars` and factors that
                ask for one.
            sharpen: times the expert's logits, for q.

        Returns:
            Nats per token.

        Choice: the logits of some tokens at a time, each with its own backward pass, so that memory is bounded by
            `CHUNK` logits and by one layer's activations, whatever the vocabulary and the depth.
        """
        share = torch.cat([torch.full((len(case.ids),), 1 / len(case.ids) / len(cases)) for case in cases])
        with torch.no_grad():
            self.scalars = self.expert(index)
            taught = self.states(cases)
            rows = max(1, CHUNK // self.policy.family.logits(taught[:1]).shape[-1])
        total = 0.0
        with torch.set_grad_enabled(weight is not None):
            self.scalars = scalars
            own = self.states(cases)
            cut = own.detach().requires_grad_(weight is not None)
            for mine, theirs, shares in zip(cut.split(rows), taught.split(rows), share.split(rows), strict=True):
                with torch.no_grad():
                    self.scalars = self.expert(index)
                    target = sharpen * self.policy.family.logits(theirs[:, None])
                self.scalars = scalars
                logits = self.policy.family.logits(mine[:, None])
                counted = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
                value = (kl_to_base(logits, target, counted) * shares.to(logits.device)).sum()
                total += value.item()
                if weight is not None:
                    (weight * value).backward()
            if weight is not None:
                own.backward(cut.grad)
        return total


def learn(
    mixture: Mixture, cases: Mapping[str, Sequence[Case]], config: LearnedScalars.Config
) -> tuple[Tensor, dict[str, list[float]]]:
    """Descend from task arithmetic's scale.

    Args:
        mixture: of the experts; its names are the cases'.
        cases: expert -> its questions with its replies.
        config: of the method.

    Returns:
        (K, groups) scalars; and expert -> KL to it over all of its cases, before and after.
    """
    size, names = config.questions_per_step, mixture.names
    scalars = torch.full_like(mixture.scalars, config.start or 1 / len(names)).requires_grad_()
    adam = torch.optim.Adam([scalars], lr=config.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / config.steps)

    def measured() -> list[float]:
        found = []
        for index, name in enumerate(names):
            held = [cases[name][i : i + size] for i in range(0, len(cases[name]), size)]
            sums = [len(part) * mixture.kl(part, index, scalars.detach()) for part in held]
            found.append(sum(sums) / len(cases[name]))
        return found

    with mixture.beside():
        before = measured()
        for step in range(config.steps):
            adam.zero_grad()
            for index, name in enumerate(names):
                held = cases[name]
                turn = [held[(step * size + i) % len(held)] for i in range(min(size, len(held)))]
                mixture.kl(turn, index, scalars, weight=1 / len(names))
            adam.step()
            falling.step()
        after = measured()
    return scalars.detach(), {name: [b, a] for name, b, a in zip(names, before, after, strict=True)}


def taught(
    method: LearnedScalars,
    experts: Mapping[str, Sequence[Path]],
    file: Path,
    made_from: Mapping[str, Any],
    cases: Callable[[], tuple[Policy, Mapping[str, Sequence[Case]]]],
    say: Callable[[str], None] = print,
) -> LearnedScalars:
    """The method with its scalars, from a file where the same ones were learned before.

    Args:
        method: without scalars.
        experts: specialty -> adapter folders that together are its expert.
        file: keeps the scalars; whole or absent.
        made_from: what they depend on besides the method, in JSON's types.
        cases: the bare base, and expert -> its questions with its replies.
        say: is told how far the KL fell.

    Raises:
        DamagedError: the file is not as it was written.
    """
    made_from = {**made_from, "method": asdict(method.config)}
    found = json.loads(get_text(file)) if file.exists() else {}
    if found.get("made_from") != made_from:
        policy, asked = cases()
        vectors = {
            name: add([task_vector_of(open_adapter(path, base_fingerprint=None), str(path)) for path in experts[name]])
            for name in sorted(experts)
        }
        mixture = Mixture(policy, vectors, method.config.per)
        scalars, kl = learn(mixture, asked, method.config)
        rows = zip(mixture.names, scalars.tolist(), strict=True)
        learned = {name: dict(zip(mixture.groups, row, strict=True)) for name, row in rows}
        found = {"made_from": made_from, "kl": kl, "scalars": learned}
        put_text(file, json.dumps(found, indent=1, sort_keys=True) + "\n")
        told = ", ".join(f"{name} {before:.3g} to {after:.3g}" for name, (before, after) in kl.items())
        say(f"learned scalars: KL to the own expert, nats a token, from the start: {told}")
    return LearnedScalars(replace(method.config, scalars=found["scalars"]))

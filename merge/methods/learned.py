"""Learned scalars: task arithmetic whose scale of every expert, or of every layer, was learned on the live model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from typing_extensions import override

from guards.ranges import FINITE, Ranged, above, at_least
from merge.factors import concatenated
from merge.methods.interface import Experts, MergeMethod, Update

Per = Literal["expert", "layer", "module"]


def group_of(module: str, per: Per) -> str:
    """The name of the modules that share a scalar with this one.

    >>> [group_of("model.layers.3.mlp.up_proj", per) for per in ("expert", "layer", "module")]
    ['all', 'model.layers.3', 'model.layers.3.mlp.up_proj']
    """
    layer = re.match(r"(.*?\.\d+)\.", module)
    return {"expert": "all", "layer": layer.group(1) if layer else "other", "module": module}[per]


class LearnedScalars(MergeMethod):
    """The sum of the experts, each layer of each under a scalar of its own.

        M_l = sum_i w_i s_{i,l} D_{i,l}

    The scalars minimise the KL from the merged agent to each question's own expert (`answering.scalars`), and stand in
    the merge's recipe, which makes the same bytes again without a model.

    Source: coefficients per layer that are learned on a few questions: AdaMerging, arXiv:2310.02575 (layer-wise), and
        LoRA Soups, arXiv:2410.13025; the KL to the routed expert as the objective is ours.
    Choice: neither the entropy of the answers nor their labels: an expert tells more of each token than both.
    """

    @dataclass(frozen=True)
    class Config(Ranged):
        """Options of learned scalars."""

        per: Per = "layer"
        """What has a scalar of its own: an expert, each of its layers, or each of its modules."""
        start: Annotated[float, at_least(0)] = 0.0
        """Where all scalars start, as the scale of task arithmetic, at least 0; 0 means 1 / K."""
        steps: Annotated[int, at_least(1)] = 40
        """Steps of Adam, at least 1."""
        rate: Annotated[float, above(0)] = 0.05
        """Learning rate of the scalars, above 0; it falls to 0 along a line."""
        questions_per_step: Annotated[int, at_least(1)] = 4
        """Questions of each specialty in a step, at least 1; they come in turn."""
        scalars: dict[str, dict[str, Annotated[float, FINITE]]] = field(default_factory=dict)
        """Expert -> layer (or module, or `all`) -> scalar; empty until they are learned."""

    @property
    def needs_scalars(self) -> bool:
        """Whether they are to be learned yet."""
        return not self.config.scalars

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        c = self.config
        if self.needs_scalars:
            raise ValueError(
                "LearnedScalars has no scalars, and learns them from a live model; run it where the experts' data are "
                "at hand (an experiment's merge, or a recipe with `live`), or give `scalars`"
            )
        groups = {group_of(name, c.per) for name in experts.modules}
        if set(c.scalars) != set(experts.names) or any(set(own) != groups for own in c.scalars.values()):
            wanted = f"experts: {sorted(experts.names)}, each with {sorted(groups)[:3]}"
            raise ValueError(f"scalars of {told(c.scalars)} are given; {wanted}")

        def module(name: str) -> Update:
            own = [c.scalars[expert][group_of(name, c.per)] for expert in experts.names]
            weights = [w * s for w, s in zip(experts.weights, own, strict=True)]
            return Update(concatenated(experts.factors(name), weights))

        return module


def told(scalars: Mapping[str, Mapping[str, float]]) -> str:
    """Experts and some of their groups, for a message."""
    return ", ".join(f"{name} ({', '.join(sorted(own)[:3])})" for name, own in sorted(scalars.items()))

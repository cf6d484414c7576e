"""Concatenation: the experts' factors side by side, which is their weighted sum with nothing computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from merge.factors import concatenated
from merge.methods.interface import Experts, MergeMethod, Update


class Cat(MergeMethod):
    """The weighted sum as B = [w_1 B_1 ... w_K B_K], A = [A_1; ...; A_K].

    Source: PEFT's combination type `cat`.
    Choice: what is written is still cut to the rank asked for; at rank `sum` that loses nothing.
    """

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    @override
    def prepare(self, experts: Experts) -> Callable[[str], Update]:
        return lambda name: Update(concatenated(experts.factors(name), experts.weights))

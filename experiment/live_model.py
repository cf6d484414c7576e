"""The live model of an experiment for merges that are started from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from answering.live_model import MergeModel
from configs.load import load
from experiment.run import assemble


def live_model(config: str, overrides: Sequence[str] = (), *, n: int = 60, max_new_tokens: int = 96) -> MergeModel:
    """Base and data of an experiment file, for `merge.recipe.Live`.

    Args:
        config: experiment file, as `train.py --config` takes it.
        overrides: dotted `key=value` arguments.
        n: questions per specialty and split; 0 takes all.
        max_new_tokens: limit of an answer in tokens.
    """
    return MergeModel(assemble(load(config, list(overrides))), n=n, max_new_tokens=max_new_tokens)

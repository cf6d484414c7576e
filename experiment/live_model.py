"""The live model of an experiment file, for merges and teachers that are started from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from answering.live_base import LiveBase
from answering.live_model import LiveModel
from answering.merge_answers import MergeAnswers
from configs.load import load
from experiment.context import ExperimentContext
from experiment.run import assemble

LIVE = LiveBase()
"""Shared by all that ask here, such as a teacher and the base of the pass rate: two bases are never alive."""


def live_model(config: str, overrides: Sequence[str] = ()) -> LiveModel:
    """The base of an experiment file, to be asked with adapters on top.

    Args:
        config: experiment file, as `train.py --config` takes it.
        overrides: dotted `key=value` arguments.
    """
    return LiveModel(context_of(config, overrides))


def merge_answers(config: str, overrides: Sequence[str] = (), *, n: int = 60, max_new_tokens: int = 96) -> MergeAnswers:
    """What merges ask, of base and data of an experiment file, for `merge.live.Live`.

    Args:
        config: experiment file, as `train.py --config` takes it.
        overrides: dotted `key=value` arguments.
        n: questions per specialty and split; 0 takes all.
        max_new_tokens: limit of an answer in tokens.
    """
    return MergeAnswers(context_of(config, overrides), n=n, max_new_tokens=max_new_tokens)


def context_of(config: str, overrides: Sequence[str]) -> ExperimentContext:
    """An experiment file's context on this process's live base; arguments as of `live_model`."""
    return assemble(load(config, list(overrides)), LIVE)

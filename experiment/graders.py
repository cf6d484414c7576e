"""The reward model that an experiment trained, to be asked."""

from __future__ import annotations

from collections.abc import Sequence

from answering.grader import Grader
from answering.live_model import LiveModel
from artifacts.adapter_files import AdapterError
from experiment.live_model import context_of


def grader_of(config: str, overrides: Sequence[str], run: str) -> Grader:
    """The reward model of a finished run, on the adapters that it stands on.

    Args:
        config: experiment file, as `train.py --config` takes it.
        overrides: dotted `key=value` arguments.
        run: its specialty.

    Raises:
        AdapterError: the run is not finished, or left no reward model.
        ConfigError: the file is wrong.
    """
    context = context_of(config, overrides)
    if run not in context.runs:
        raise AdapterError(f"{config}: has no run {run!r}; it has {', '.join(context.runs)}")
    if not context.is_run_complete(run):
        raise AdapterError(
            f"{context.folder.run(run).adapter}: no finished reward model; run `python train.py --config {config}` "
            "with the same settings first"
        )
    return Grader.of(LiveModel(context), [folder for _, folder in context.expert_chain(run)])

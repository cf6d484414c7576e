"""The TensorBoard curves of one run."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams
from typing_extensions import override

from artifacts.ranks import is_first
from callbacks.board_files import set_aside
from experiment.context import ExperimentContext


class Curves(TensorBoardLogger):
    """A logger that stays open until `close`, so that each start of a run has one file of events.

    Lightning ends a logger after the validation before the first step too. What came then went to a second file, whose
    name may sort before the first one's, and TensorBoard reads files in the order of their names.
    """

    @override
    def finalize(self, status: str) -> None:
        self.experiment.flush()
        self.save()

    def close(self) -> None:
        """Close the file."""
        self.experiment.close()


def tensorboard(context: ExperimentContext, specialty: str, stage: L.LightningModule, resumed: int | None) -> Curves:
    """The run's logger; settings and the names of the metrics to compare go into the HParams table.

    Args:
        context: of the experiment.
        specialty: the run.
        stage: knows its metrics.
        resumed: step from which on the run logs anew; what an interrupted run logged there is withdrawn. None starts
            afresh.
    """
    name, folder = context.experiment.name, context.experiment.runs_dir
    if resumed is None and is_first():
        set_aside(context.folder.run(specialty).path)  # of a run that was killed before its first checkpoint
    # A board that is being looked at forgets what it read of files that are gone only if it is told the step.
    logger = Curves(folder, name=name, version=specialty, default_hp_metric=False, purge_step=resumed or 0)
    if resumed is None and is_first():
        names = dict.fromkeys(stage.metrics_at_start(), 0.0)  # the table takes names from here, values from the curves
        for summary in hparams(flat(context.resolved), names):
            logger.experiment.file_writer.add_summary(summary)
    return logger


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys for the HParams table; lists become text."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: tree if isinstance(tree, int | float | str | bool) else str(tree)}

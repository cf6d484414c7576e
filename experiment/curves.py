"""The TensorBoard curves of one run."""

from __future__ import annotations

from lightning.pytorch.loggers import TensorBoardLogger
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


def tensorboard(context: ExperimentContext, specialty: str, resumed: int | None) -> Curves:
    """The run's logger.

    Args:
        context: of the experiment.
        specialty: the run.
        resumed: step from which on the run logs anew; what an interrupted run logged there is withdrawn. None starts
            afresh.
    """
    name, folder = context.experiment.name, context.experiment.runs_dir
    if resumed is None and is_first():
        set_aside(context.folder.run(specialty).path)  # of a run that was killed before its first checkpoint
    # A board that is being looked at forgets what it read of files that are gone only if it is told the step.
    return Curves(folder, name=name, version=specialty, default_hp_metric=False, purge_step=resumed or 0)

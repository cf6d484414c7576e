"""A callback that knows the experiment its run belongs to, and acts once more when all runs are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L

from datamodules.base import VQADataModule
from datamodules.loading import Demand

if TYPE_CHECKING:
    from experiment.context import ExperimentContext


class ExperimentCallback(L.Callback):
    """Base class of the callbacks that a YAML lists."""

    config: Any
    work: ClassVar[str] = ""
    """What `finish` does, in words for somebody who waits; empty takes the class's name."""
    is_shared: ClassVar[bool] = False
    """Whether `finish_share` does part of the work of `finish`, which then finds it done."""

    def __init__(self, config: Any = None, *, experiment: ExperimentContext) -> None:
        """Keep both.

        Args:
            config: the subclass's `Config`; None means its defaults.
            experiment: the experiment in flight.
        """
        self.config = config if config is not None else self.Config()
        self.experiment = experiment

    def plan(self) -> str:
        """One line for a dry run about what `finish` would do; empty says nothing."""
        return ""

    def demands(self) -> Mapping[str, Demand]:
        """Split -> how `finish` puts its questions to the model."""
        return {}

    def further_data(self) -> Mapping[str, VQADataModule]:
        """What `finish` asks besides the specialties' questions: name in messages -> set."""
        return {}

    def finish_share(self, index: int, count: int) -> bool:
        """Do a share of what `finish` would do that needs no other share; shares run at once, on several machines.

        Called again until nothing is left, as other processes may make more meanwhile.

        Args:
            index: of the share, from 0.
            count: of all shares.

        Returns:
            Whether there was anything to do.
        """
        return False

    def finish(self) -> None:
        """Called when every run of the experiment is complete, possibly more than once: do nothing twice."""

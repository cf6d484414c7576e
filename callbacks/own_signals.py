"""Let signals be ours while Lightning runs."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
from typing_extensions import override


class OwnSignals(L.Callback):
    """Puts our handlers back in place of Lightning's.

    Lightning's handler of SIGTERM speaks to the other devices from inside the signal, where they do not listen: a run
    on several devices would hang, or take the word for a gradient.
    """

    def __init__(self, take: Callable[[], None]) -> None:
        """Keep what installs them.

        Args:
            take: makes this process heed its signals in our way.
        """
        self.take = take

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.take()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.take()

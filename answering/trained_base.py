"""The base of what was trained, in memory as the examination had it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from answering.trained import Trained
from artifacts.adapter_files import base_fingerprint
from artifacts.base_files import read_base
from lightning_modules.families.found import family_of
from lightning_modules.policy import Policy


@dataclass(frozen=True)
class Settings:
    """What asking needs to know of an experiment, where there is none; see `answering.context.AskingSettings`."""

    name: str
    trainer: Mapping[str, Any] = field(default_factory=dict)


class TrainedBase:
    """Loads a base when it is first needed; see `answering.context.BaseContext`."""

    def __init__(self, trained: Trained, *, accelerator: str = "auto") -> None:
        """Keep which.

        Args:
            trained: whose base.
            accelerator: as Lightning's; "cpu" leaves a card alone.
        """
        self.trained, self.experiment = trained, Settings(trained.name, {"accelerator": accelerator})
        self._held: tuple[Policy, str] | None = None

    def policy(self) -> tuple[Policy, str]:
        """The policy on the base, and the base's fingerprint.

        Raises:
            UnknownOriginError: the base cannot be found by what is said of it.
            CheckpointError: it is not there, or not whole.
            DamagedError: trained weights are not as they were written.
        """
        if self._held is None:
            self._held = self._load()
        return self._held

    def _load(self) -> tuple[Policy, str]:
        origin = self.trained.origin
        if origin.get("weights") is not None:
            read_base(Path(origin["weights"]))
        family = family_of(origin)
        fingerprint = base_fingerprint(family.named_parameters())  # of the source, whatever it is cast to
        if self.trained.precision == "bf16":
            for parameter in family.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
        family.pack()
        return Policy(family), fingerprint

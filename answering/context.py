"""What asking needs to know of the experiment in flight; `experiment.context.ExperimentContext` offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from datamodules.base import VQADataModule
from endpoints.endpoint import Endpoint
from endpoints.replies import Replies
from lightning_modules.policy import Policy


class AskingSettings(Protocol):
    """The part of an experiment's settings that counts here."""

    @property
    def name(self) -> str:
        """Of the experiment, for lines of progress."""

    @property
    def trainer(self) -> Mapping[str, Any]:
        """Lightning's arguments; "accelerator" says where the model runs."""


class BaseContext(Protocol):
    """What has a base in memory, to be asked with adapters on top."""

    @property
    def experiment(self) -> AskingSettings:
        """Its settings."""

    def policy(self) -> tuple[Policy, str]:
        """The process's one policy on the base, and the base's fingerprint; see `answering.live_base.LiveBase`."""


class AskingContext(BaseContext, Protocol):
    """An experiment that a model can be asked for."""

    @property
    def specialties(self) -> list[str]:
        """All that it has questions of."""

    def data(self, specialty: str) -> VQADataModule:
        """The specialty's questions."""

    @property
    def endpoint(self) -> tuple[Endpoint, Replies] | None:
        """Whom to ask in place of a model here, and where its replies are kept; None where the model runs here."""

"""When a run has finished its steps, leave what it made: an adapter bound to its base, or base weights."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import lightning as L
from typing_extensions import override

from artifacts.adapter_checks import reading
from artifacts.adapter_files import adapter_sha256, write_adapter
from artifacts.base_files import write_base

if TYPE_CHECKING:
    from experiment.context import ExperimentContext
    from lightning_modules.stage import Stage


class SaveResult(L.Callback):
    """Writes `adapter/` or `base/`, manifest last, so that a complete folder is a finished run."""

    def __init__(
        self, experiment: ExperimentContext, specialty: str, fingerprint: str, provenance: dict[str, Any]
    ) -> None:
        """Keep what the manifest will say.

        Args:
            experiment: the experiment in flight.
            specialty: whose run this is.
            fingerprint: of the base that the run started from.
            provenance: goes into the manifest.
        """
        self.experiment, self.specialty = experiment, specialty
        self.fingerprint, self.provenance = fingerprint, provenance
        self.metrics: dict[str, float] = {}

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Stage, *_: object) -> None:
        if trainer.global_step >= trainer.max_steps:
            self.metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics}  # for a run that was killed between its last checkpoint and its result

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = state_dict["metrics"]

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: Stage) -> None:
        if trainer.global_step < trainer.max_steps:
            return  # too many updates were skipped: what is there is no result
        run = self.experiment.folder.run(self.specialty)
        family = pl_module.policy.family
        beneath = self.experiment.experts_beneath(self.specialty)
        parent = {"sha256": adapter_sha256(beneath[-1][1]), "specialty": self.specialty} if beneath else None
        manifest = {
            "kind": pl_module.kind,
            "base_fingerprint": self.fingerprint,
            "parent": parent,
            "specialty": self.specialty,
            "experiment": self.experiment.experiment.name,
            "config_sha256": hashlib.sha256(json.dumps(self.experiment.resolved, sort_keys=True).encode()).hexdigest(),
            "data_sha256": self.provenance["data_sha256"],
            "git": self.provenance["git"],
            "metrics": self.metrics,
            "extra": reading(family.tokenizer.backend_tokenizer.to_str(), family.prompt_ids("Is this normal?", [1]))
            | {"steps": self.provenance["steps"], "continuations": self.provenance["continuations"]},
        }
        if pl_module.provides == "expert":
            config, tensors = pl_module.policy.adapter_state(pl_module.adapter)
            write_adapter(run.adapter, config, tensors, manifest)
        else:
            write_base(run.base, family, manifest)

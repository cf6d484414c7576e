"""What a run leaves when it has taken its steps: an adapter bound to its base, or base weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from artifacts.adapter_files import adapter_sha256, write_adapter
from artifacts.base_files import write_base
from artifacts.checkpoints import before
from artifacts.head_files import KEY, write_head
from artifacts.manifest import beside
from experiment.context import ExperimentContext
from experiment.integration import FOUNDATIONS
from experiment.judges import JUDGED_BY
from experiment.reading import reading_of
from lightning_modules.stage import Stage


@dataclass(frozen=True)
class Kept:
    """Which of a run's weights its result has.

    Attributes:
        which: `last` or `best`.
        step: batches they were trained on.
        validation: `step` and metrics of the newest validation of these weights or, of the last ones, before them.
        metrics: what else was measured last.
    """

    which: str
    step: int
    validation: dict[str, Any]
    metrics: dict[str, float]


def save_result(
    context: ExperimentContext,
    specialty: str,
    stage: Stage,
    kept: Kept,
    *,
    fingerprint: str,
    provenance: dict[str, Any],
) -> None:
    """Write `adapter/` or `base/`, manifest last, so that a complete folder is a finished run.

    Of the checkpoints the last one stays.

    Args:
        context: the experiment in flight.
        specialty: whose run this is.
        stage: with the weights to keep.
        kept: which these are.
        fingerprint: of the base that the run started from.
        provenance: goes into the manifest.

    Raises:
        RuntimeError: a trained weight is not finite.
        OSError: the disk is full or the folder cannot be written.
    """
    spoilt = [name for name, parameter in stage.trained.items() if not bool(parameter.isfinite().all())]
    if spoilt:
        raise RuntimeError(f"{specialty}: {spoilt[0]} is not finite after step {kept.step}; no result is written")
    run, family = context.folder.run(specialty), stage.policy.family
    beneath = context.experts_beneath(specialty)
    parent = {"sha256": adapter_sha256(beneath[-1][1]), "specialty": specialty} if beneath else None
    accuracy = kept.validation.get("metrics", {}).get(f"val/accuracy/{specialty}")
    manifest = {
        "kind": stage.kind,
        "base_fingerprint": fingerprint,
        "parent": parent,
        "specialty": specialty,
        "experiment": context.experiment.name,
        "config_sha256": hashlib.sha256(json.dumps(context.resolved, sort_keys=True).encode()).hexdigest(),
        "data_sha256": provenance["data_sha256"],
        "git": provenance["git"],
        "metrics": kept.metrics | kept.validation.get("metrics", {}),
        "extra": reading_of(stage.policy)
        | {"base": family.origin, "checkpoint": {"kept": kept.which, "step": kept.step, "val_accuracy": accuracy}}
        | {"steps": provenance["steps"], "continuations": provenance["continuations"]}
        | {key: provenance[key] for key in (FOUNDATIONS, JUDGED_BY) if key in provenance},
    }
    further = stage.beside_adapter(kept.validation.get("metrics", {}))
    if further is not None:
        manifest["extra"][KEY] = write_head(run.adapter, *further)
    if stage.provides != "base":
        config, tensors = stage.policy.adapter_state(stage.adapter)
        write_adapter(run.adapter, config, tensors, manifest)
    else:
        write_base(run.base, family, manifest)
    former = before(run.checkpoint)
    for file in (former, beside(former)):  # from the last one, and the best, a longer run goes on
        file.unlink(missing_ok=True)

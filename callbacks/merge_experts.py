"""CACI: when the last expected expert is in, merge them all into one agent.

Source: conflict-aware capability integration, MMedExpert-R1, arXiv:2601.10949: TIES over the knowledge experts (SFT)
    and the reasoning vectors (RL).
Choice: every experiment of the lineage contributes its own task vectors, so after GBA both the DSA updates and the RL
    updates on top of them are sources, each kept apart. Density, scale and rank are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning as L
from typing_extensions import override

from callbacks.experiment_callback import ExperimentCallback
from configs.build import build
from configs.schema import Component
from experiment.folders import locked
from merge.run import merge_adapters


class MergeExperts(ExperimentCallback):
    """Merges with each configured method into `merged/<name>/`; idempotent, and safe among several processes."""

    @dataclass(frozen=True)
    class Config:
        """Which methods, and how large the merged adapter may be."""

        methods: dict[str, dict[str, Any]] = field(default_factory=dict)
        """Name -> {class_path, init_args} of a merge method."""
        rank: str = "sum"
        """Rank of the merged LoRA: `sum` of the experts', a number, or `energy:0.99`."""
        sources: str = "lineage"
        """`lineage`: the update of each stage is a source of its own; `experts`: each specialty's summed update is."""

        def __post_init__(self) -> None:
            if self.sources not in ("lineage", "experts"):
                raise ValueError(f"sources must be 'lineage' or 'experts', got {self.sources!r}")

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.experiment.is_complete():
            self.finish()

    @override
    def finish(self) -> None:
        folder = self.experiment.folder
        with locked(folder.path / "merged", "the merge"):
            for name, spec in self.config.methods.items():
                summary = merge_adapters(
                    self.sources(),
                    build(Component(spec["class_path"], dict(spec.get("init_args", {})))),
                    folder.merged(name),
                    base_fingerprint=None,
                    rank=self.config.rank,
                )
                if not summary.skipped:
                    report = summary.report
                    count, verdict = len(self.sources()), report["verdict"]
                    print(f"merged {count} task vectors by {name}: verdict {verdict}", flush=True)
                    for finding in report["findings"]:
                        print(f"  {finding}", flush=True)

    def sources(self) -> dict[str, list]:
        """Name of a task vector -> the adapter folders whose updates it sums."""
        found: dict[str, list] = {}
        for specialty in self.experiment.specialties:
            chain = self.experiment.expert_chain(specialty)
            if self.config.sources == "experts":
                found[specialty] = [path for _, path in chain]
            else:
                found |= {f"{adapter}.{specialty}": [path] for adapter, path in chain}
        return found

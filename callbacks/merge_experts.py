"""CACI: when the last expected expert is in, merge them all into one agent.

Source: conflict-aware capability integration, MMedExpert-R1, arXiv:2601.10949: TIES over the knowledge experts (SFT)
    and the reasoning vectors (RL).
Choice: every experiment of the lineage contributes its own task vectors, so after GBA both the DSA updates and the RL
    updates on top of them are sources, each kept apart. Density, scale and rank are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import override

from answering.conditioning import Conditioning
from answering.merge_answers import MergeAnswers
from artifacts.folders import locked
from artifacts.manifest import MANIFEST
from callbacks.experiment_callback import ExperimentCallback
from callbacks.merge_board import write_board
from configs.build import build
from configs.schema import Checked, Component, Slot, check_name
from datamodules.loading import Demand
from experiment.provenance import git_state
from guards.ranges import Ranged, at_least
from merge.auto import auto_merge
from merge.grams import BUDGET_MIB
from merge.methods.interface import MergeMethod
from merge.methods.learned import LearnedScalars
from merge.methods.mean import Mean
from merge.recipe import Recipe, Source, preset_faults, rank_faults, read_method
from merge.run import CONFLICT_JSON, CONFLICT_MD, REJECTED, MergeSummary, merge_adapters

AUTO = "auto"


class MergeExperts(ExperimentCallback):
    """Merges with each configured method into `merged/<name>/`; idempotent, and safe among several processes."""

    work = "merging the experts"

    @dataclass(frozen=True)
    class Config(Ranged):
        """Which methods, and how large the merged adapter may be."""

        methods: dict[str, Annotated[dict[str, Any], Slot(MergeMethod)]] = field(default_factory=dict)
        """Name -> {class_path, init_args} of a merge method."""
        presets: Annotated[tuple[str, ...], Checked(preset_faults)] = ()
        """Further methods by the name of their file in `configs/merge/`."""
        rank: Annotated[int | str, Checked(rank_faults)] = "sum"
        """Rank of the merged LoRA: `sum` of the experts', `max`, a number, or `energy:0.99`."""
        sources: Literal["lineage", "experts"] = "lineage"
        """`lineage`: the update of each stage is a source of its own; `experts`: each specialty's summed update is.
        Methods that learn from a specialty's questions always take the latter: one expert, one set of questions."""
        condition: Conditioning | None = None
        """Merge what distillation makes of each specialty's expert: of the smallest one's norm, and surer of itself;
        `{}` takes the defaults. None merges the experts as they are."""
        gate: Literal["warn", "reject"] = "reject"
        """What becomes of a merge that the gates reject: `reject` puts it apart, into `rejected/`, and the matrix shows
        it as such; `warn` lets it through, with its verdict."""
        gate_n: Annotated[int, at_least(0)] = 40
        """Validation questions per specialty on which gates compare a merged agent with base and expert; 0: none."""
        gram_rows: Annotated[int, at_least(1)] = 96
        """Training questions per specialty for Gram matrices, learned scalars and conditioning; at least 1."""
        gram_mib: Annotated[int, at_least(1)] = BUDGET_MIB
        """Memory for the Gram matrices that are collected together, MiB, at least 1; with less, more passes."""
        auto: bool = False
        """Also build all candidates of `merge.auto`, choose by examination, and write the winner to `merged/auto/`."""
        auto_n: Annotated[int, at_least(0)] = 60
        """Questions per specialty on which candidates are chosen, and the winner confirmed; 0 takes all."""
        auto_candidates: dict[str, Annotated[dict[str, Any], Slot(MergeMethod)]] = field(default_factory=dict)
        """Name -> {class_path, init_args}; empty takes the candidates of `merge.auto`."""
        max_new_tokens: Annotated[int, at_least(1)] = 96
        """Limit of an answer in tokens, for `auto`."""
        pictures: bool = True
        """Draw maps over layers and projections for TensorBoard, seconds per merge; false writes numbers alone."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in (*self.methods, *self.auto_candidates):
                check_name("methods entry", name)
            twice = (set(self.methods) | {AUTO}) & set(self.presets) | {AUTO} & set(self.methods)
            if twice:
                raise ValueError(f"two merges are called {sorted(twice)[0]!r}, and each has a folder of its name")

        @property
        def names(self) -> tuple[str, ...]:
            """Of the merges, which are those of their folders."""
            return (*self.methods, *self.presets, *([AUTO] if self.auto else []))

    @override
    def demands(self) -> Mapping[str, Demand]:
        return {"val": Demand(("",), self.config.max_new_tokens)}

    @override
    def finish(self) -> None:
        if not self.experiment.is_complete():
            return  # whichever run comes last merges
        folder = self.experiment.folder
        with locked(folder.path / "merged", "the merge"):
            for name, method in self.methods().items():
                sources = self.sources_of(method)
                if isinstance(method, LearnedScalars) and method.needs_scalars:
                    file = folder.path / "merged" / ".scalars" / f"{name}.json"
                    method = self.answers.taught(method, sources, file, self.config.gram_rows)
                summary = merge_adapters(
                    sources,
                    method,
                    folder.merged(name),
                    base_fingerprint=None,
                    rank=self.config.rank,
                    gate=self.config.gate,
                    grams=self.grams() if method.needs_grams else None,
                    manifest_extra=self.manifest_extra(),
                    examination=self.answers.examination(self.sources(experts=True), self.config.gate_n),
                )
                self.tell(name, summary)
            if self.config.auto:
                self.choose()

    @override
    def finish_share(self, index: int, count: int) -> bool:
        places = [self.experiment.folder.merged(name) for name in self.config.names if index == 0]
        merges = [out for place in places for out in (place, place / REJECTED) if (out / MANIFEST).is_file()]
        drawn = [
            write_board(out, json.loads((out / CONFLICT_JSON).read_text("utf-8")), pictures=self.config.pictures)
            for out in merges
        ]
        return any(drawn)

    def methods(self) -> dict[str, MergeMethod]:
        """Every configured method by name."""
        specs = {n: Component(s["class_path"], dict(s.get("init_args") or {})) for n, s in self.config.methods.items()}
        return {name: build(spec) for name, spec in specs.items()} | {n: read_method(n) for n in self.config.presets}

    def choose(self) -> None:
        """Search by examination; what was searched before is recognised by its candidates' contents."""
        sources = {name: [Source(path) for path in chain] for name, chain in self.merged_experts.items()}
        recipe = Recipe(sources, Mean(), self.experiment.folder.merged(AUTO), rank=self.config.rank, grams=self.grams())
        winner = auto_merge(
            recipe,
            self.sources(experts=True),
            self.answers.examine,
            protocol=self.answers.protocol(),
            candidates=self.config.auto_candidates or None,
            manifest_extra=self.manifest_extra(),
            say=lambda line: print(line, flush=True),
        )
        if winner is not None:
            self.tell(AUTO, winner)

    def tell(self, name: str, summary: MergeSummary) -> None:
        """Print what was found, and put it on the board, unless that was done before."""
        report = summary.report
        if not self.experiment.part.merges_only:  # else whoever examines the merges draws them
            write_board(summary.out, report, pictures=self.config.pictures)
        if summary.skipped:
            return
        count, gates = len(report["names"]), report["gates"]["verdict"]
        where = summary.out / CONFLICT_MD
        print(f"merged {count} task vectors by {name}: gates {gates}; the conflict report: {where}", flush=True)
        for gate in report["gates"]["gates"]:
            if gate["verdict"] != "accept":
                print(f"  {gate['verdict']}: {gate['text']}", flush=True)

    @cached_property
    def answers(self) -> MergeAnswers:
        """What is asked of the live model; its base is loaded when it is first asked something."""
        c = self.config
        return MergeAnswers(self.experiment, max_new_tokens=c.max_new_tokens, n=c.auto_n, gram_mib=c.gram_mib)

    def grams(self) -> dict[str, Path]:
        """Specialty -> file of its Gram matrices, collected under what is merged where they are missing."""
        folder = self.experiment.folder.path / "merged" / ".grams"
        return {
            specialty: self.answers.grams(specialty, chain, folder / specialty, self.config.gram_rows)
            for specialty, chain in self.merged_experts.items()
        }

    def manifest_extra(self) -> Mapping[str, Any]:
        """What the merged adapter's manifest says about where it comes from."""
        return {
            "experiment": self.experiment.experiment.name,
            "git": git_state(runs_dir=Path(self.experiment.experiment.runs_dir)),
        }

    def sources_of(self, method: MergeMethod) -> dict[str, list[Path]]:
        """Name of a task vector that a method merges -> the adapter folders whose updates it sums."""
        c, learns = self.config, method.needs_grams or isinstance(method, LearnedScalars)
        apart = c.sources == "lineage" and c.condition is None and not learns
        return self.sources(experts=False) if apart else self.merged_experts

    @cached_property
    def merged_experts(self) -> dict[str, list[Path]]:
        """Specialty -> what is merged of its expert: its adapters, or what conditioning made of them."""
        experts, c = self.sources(experts=True), self.config
        if c.condition is None:
            return experts
        folder = self.experiment.folder.path / "merged" / ".conditioned" / c.condition.name
        return self.answers.conditioned(experts, folder, c.condition, c.gram_rows)

    def sources(self, *, experts: bool) -> dict[str, list[Path]]:
        """Name of a task vector -> the adapter folders whose updates it sums.

        Args:
            experts: one task vector per specialty, instead of one per specialty and stage.
        """
        found: dict[str, list[Path]] = {}
        for specialty in self.experiment.specialties:
            chain = self.experiment.expert_chain(specialty)
            if experts:
                found[specialty] = [path for _, path in chain]
            else:
                found |= {f"{adapter}.{specialty}": [path] for adapter, path in chain}
        return found

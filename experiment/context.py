"""An experiment in flight: how to build its parts, and the one live base that they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from answering.live_base import LiveBase
from answering.validation import validation_asker
from artifacts.adapter_files import base_fingerprint, read_adapter
from artifacts.base_files import read_base
from configs.build import build
from configs.schema import AGENT, Component
from datamodules.base import VQADataModule
from datamodules.hashes import data_sha256
from datamodules.mixture import Mixture
from datamodules.replay import Replayed
from endpoints.endpoint import Endpoint
from endpoints.replies import Replies
from experiment.integration import attach_teachers
from experiment.judges import attach_judges
from experiment.launchers.part import WHOLE, Part
from experiment.lineage import Lineage
from experiment.reading import check_tokenizer
from experiment.seeing import sight_of
from lightning_modules.feature_cache import FeatureCache
from lightning_modules.policy import Policy
from lightning_modules.stage import Stage, StageContext

REPLAY = "replay"
"""What the set is called of which rows are mixed in."""
MEMORY = ".checked"
"""Folder below `runs_dir` that keeps what was found out about the data."""
REPLIES = ".replies"
"""Folder below `runs_dir` that keeps every reply of every endpoint: no experiment asks for what another one knows."""


@dataclass
class ExperimentContext(Lineage):
    """What stages and callbacks may ask of the experiment they belong to.

    Attributes:
        live: the base in memory; shared with the experiments that this one requires.
        sets: every set that was built first of those with its rows, which the others take from it; shared alike.
        part: of the work that this command does.
        is_asked: whether the command names this experiment, not one that requires it.
        remembers: whether what is found out about the data is kept for other processes; a dry run leaves no file.
    """

    live: LiveBase = field(default_factory=LiveBase)
    sets: dict[str, VQADataModule] = field(default_factory=dict)
    part: Part = WHOLE
    is_asked: bool = True
    remembers: bool = True
    _data: dict[str, VQADataModule] = field(default_factory=dict)
    _further: dict[str, VQADataModule] = field(default_factory=dict)

    def data(self, specialty: str) -> VQADataModule:
        """The specialty's data module, built once; of the run over all of them, the mixture."""
        if specialty == AGENT and specialty not in self._data:
            members = {name: self.data(name) for name in self.specialties}
            steps = self.steps if self.experiment.train == "sequential" else 0
            self._data[specialty] = Mixture(members, specialty=specialty, seed=self.experiment.seed, sequence=steps)
        if specialty not in self._data:
            self._data[specialty] = self._built(self.experiment.specialties[specialty], specialty)
        return self._data[specialty]

    def further_data(self, component: Component, called: str) -> VQADataModule:
        """A set that is no specialty, built once; it has only its own options.

        Args:
            component: the set.
            called: in messages; one set has one name.
        """
        if called not in self._further:
            self._further[called] = self._built(component, called)
        return self._further[called]

    @property
    def replayed(self) -> VQADataModule | None:
        """The set of which rows are mixed into every step, where there is one."""
        replay = self.experiment.replay
        return None if replay is None else self.further_data(replay.data, REPLAY)

    def training_data(self, specialty: str) -> VQADataModule:
        """What a run trains on: the specialty's data module, or that with rows of another set mixed in."""
        own, replayed = self.data(specialty), self.replayed
        return own if replayed is None else Replayed(own, replayed, self.experiment.replay.share)

    def rows_sha256(self, specialty: str) -> str:
        """Hash of all rows that a run trains on."""
        own, replayed = data_sha256(self.data(specialty), "train"), self.replayed
        if replayed is None:
            return own
        told = [own, data_sha256(replayed, "train"), self.experiment.replay.share]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _built(self, component: Component, called: str) -> VQADataModule:
        data = build(component, specialty=called, seed=self.experiment.seed)
        data.memory = Path(self.experiment.runs_dir) / MEMORY if self.remembers else None
        first = self.sets.setdefault(data.rows_key, data)
        data.same_rows = None if first is data else first
        data.sight = None if self.is_behind_endpoint else sight_of(self, data.memory, replayed=called == REPLAY)
        return data

    def without_data(self) -> ExperimentContext:
        """The same, to be sent to another process."""
        required = [one.without_data() for one in self.required]
        return replace(self, required=required, live=LiveBase(), sets={}, _data={}, _further={})

    @cached_property
    def endpoint(self) -> tuple[Endpoint, Replies] | None:
        """Whom to ask in place of a model here, and where its replies are kept; None where the model runs here.

        Raises:
            UnusableError: there is no key where the settings say.
        """
        if not self.is_behind_endpoint:
            return None
        return build(self.experiment.model), Replies(Path(self.experiment.runs_dir) / REPLIES)

    def policy(self, *, blocks_in_files: bool = False) -> tuple[Policy, str]:
        """The process's one policy on the lineage's base, and the base's fingerprint; see `LiveBase`.

        Args:
            blocks_in_files: leave the blocks' weights where they lie, for a strategy that reads parts of them.

        Raises:
            ValueError: the model is behind an endpoint.
        """
        if self.is_behind_endpoint:
            raise ValueError(f"{self.experiment.name}: a model behind an endpoint has no weights to work with here")
        key = f"{self.base_key} {'in files' if blocks_in_files else ''}"
        return self.live.of(key, lambda: self.load(self.base_folder, blocks_in_files=blocks_in_files))

    def load(self, base: Path | None, *, blocks_in_files: bool = False) -> tuple[Policy, str]:
        """A policy on the weights in a folder, or on the model as it is published (or drawn), and its fingerprint.

        Args:
            base: a trained base's folder.
            blocks_in_files: as of `policy`.

        Raises:
            DamagedError: a file of the folder, tokenizer included, is not as it was written.
        """
        if base is not None:
            read_base(base)
        told = {"blocks_in_files": True} if blocks_in_files else {}
        family = build(self.experiment.model, weights=base, **told)
        fingerprint = base_fingerprint(family.named_parameters())  # of the source, whatever it is cast to
        if self.experiment.precision == "bf16":
            for parameter in family.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
        if self.provides != "base":  # which trains the weights themselves
            family.pack()
        folder = self.experiment.feature_cache
        key = f"{fingerprint} {family.origin} {self.experiment.precision}"
        cache = FeatureCache(2**28, Path(folder), key) if folder else None
        return Policy(family, cache=cache), fingerprint

    def stage(self, specialty: str, policy: Policy, fingerprint: str) -> Stage:
        """The LightningModule of one run, the experts loaded that it starts or learns from.

        Raises:
            AdapterError: a starting expert is missing, damaged, or belongs to another base.
        """
        if self.integrates:
            teachers = attach_teachers(self, policy, fingerprint)
            return build(self.experiment.module, context=self.stage_context(policy, (), specialty, teachers))
        start = self.experts_beneath(specialty)
        for name, folder in start:
            adapter = read_adapter(folder, base_fingerprint=fingerprint)
            check_tokenizer(folder, adapter.manifest, policy)
            policy.load_adapter(name, adapter.config, adapter.tensors)
        attach_judges(self, policy, fingerprint)
        context = self.stage_context(policy, [name for name, _ in start], specialty)
        return build(self.experiment.module, context=context)

    def stage_context(
        self,
        policy: Policy,
        start: Sequence[str],
        specialty: str,
        teachers: Mapping[str, tuple[str, ...]] | None = None,
    ) -> StageContext:
        """What a stage of this experiment is given, on adapters that are loaded."""
        ask = validation_asker(self.experiment.fit.val_max_new_tokens)
        mixed = tuple(self.specialties) if specialty == AGENT else ()
        turns = len(mixed) if self.experiment.train == "sequential" else 1
        return StageContext(policy, tuple(start), specialty, self.experiment.seed, ask, teachers or {}, mixed, turns)

    def callbacks(self) -> Iterator[Any]:
        """The experiment's own callbacks, in the order of the YAML."""
        for component in self.experiment.callbacks.values():
            if component is not None:
                yield build(component, experiment=self)

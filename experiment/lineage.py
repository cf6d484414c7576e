"""Where an experiment stands: its folder, what it is made from, what its runs leave, and where all that lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from artifacts.adapter_files import result_of
from artifacts.base_files import READ, is_base_complete, read_base
from artifacts.chains import named_chains
from artifacts.folders import ExperimentFolder
from artifacts.manifest import MANIFEST, file_sha256, read_manifest
from configs.build import config_of, import_class
from configs.schema import AGENT, Experiment
from endpoints.endpoint import Endpoint
from lightning_modules.stage import Stage

PLACES = ("path", "root")
"""Settings of models that may name a file or a folder without a separator in it."""


@dataclass
class Lineage:
    """An experiment and those that it starts from, by their settings and folders; nothing is loaded.

    Attributes:
        experiment: typed settings.
        resolved: the same as plain data, for files.
        path: of the YAML.
        required: the experiments that this one starts from, in order.
        called: the name that the YAML gives it, by which command-line settings address it.
        arguments: the part of the command line that makes this experiment of the YAML, and those that it requires.
    """

    experiment: Experiment
    resolved: dict[str, Any]
    path: Path
    required: list[Self] = field(default_factory=list)
    called: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def folder(self) -> ExperimentFolder:
        """Where everything of this experiment lies."""
        return ExperimentFolder(Path(self.experiment.runs_dir) / self.experiment.name)

    @property
    def stage_class(self) -> type[Stage]:
        """The LightningModule's class; only for experiments that have one."""
        return import_class(self.experiment.module.class_path)

    @property
    def provides(self) -> Literal["base", "expert", "agent", "nothing"]:
        """What a finished run leaves; nothing where the experiment only examines."""
        if not self.experiment.module:
            return "nothing"
        return "agent" if self.is_joint else self.stage_class.provides

    @property
    def is_joint(self) -> bool:
        """Whether a stage that could make an expert of each specialty makes one agent of the data of all."""
        return self.experiment.train != "each"

    @property
    def integrates(self) -> bool:
        """Whether an agent is made from experts, and not from the specialties' data alone."""
        return self.provides == "agent" and not self.is_joint

    @property
    def steps(self) -> int:
        """Optimiser steps of each run; only for experiments that have a module."""
        return steps_of(self.resolved)

    @property
    def specialties(self) -> list[str]:
        """Every specialty that the experiment expects, whatever `only` says."""
        return list(self.experiment.specialties)

    @property
    def runs(self) -> list[str]:
        """Every run that the experiment expects: one for each specialty, or one for all of them together."""
        return self.runs_of(self.specialties)

    def runs_of(self, specialties: Sequence[str]) -> list[str]:
        """The runs in which specialties have a part."""
        return [AGENT] if self.provides == "agent" else list(specialties)

    @cached_property
    def lineage(self) -> list[Self]:
        """Every experiment that this one stands on, oldest first, itself last."""
        found: dict[Path, Self] = {}
        for parent in self.required:
            found.update({context.folder.path: context for context in parent.lineage})
        return [*found.values(), self]

    @property
    def is_behind_endpoint(self) -> bool:
        """Whether the model is asked over the network, and has no weights here."""
        return issubclass(import_class(self.experiment.model.class_path), Endpoint)

    @property
    def base_folder(self) -> Path | None:
        """Weights of the base that the lineage trained, or None where the model is used as it is published."""
        bases = [c for c in self.lineage if c is not self and c.provides == "base"]
        return bases[-1].folder.run(bases[-1].specialties[0]).base if bases else None

    @property
    def base_key(self) -> str:
        """Identifies the base by content: its files' hashes wherever they lie, the model's settings, the precision.

        A trained base counts by its manifest, which is compared with its files when they are read; a model behind an
        endpoint by where it is and how it is called.
        """
        if self.is_behind_endpoint:
            told = ["endpoint", config_of(self.experiment.model).identity]
            return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        base = self.base_folder
        files = read_manifest(base / MANIFEST)["files"] if base else {}
        hashes = sorted((name, entry["sha256"]) for name, entry in files.items())
        model = self.resolved["model"]
        settings = {key: contents(key, value) for key, value in model["init_args"].items()}
        told = [hashes, model["class_path"], settings, self.experiment.precision]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def beneath(self, run: str) -> list[Self]:
        """The experiments whose adapters a run stands on, lowest first.

        An expert stands on experts of its specialty, a joint run on joint ones; an agent made from experts on the base.
        """
        if run == AGENT:
            return [c for c in self.lineage[:-1] if c.is_joint] if self.is_joint else []
        return [c for c in self.lineage[:-1] if c.provides == "expert" and run in c.specialties]

    def experts_beneath(self, run: str) -> list[tuple[str, Path]]:
        """(adapter name, folder) of what a run stands on: of a specialty its experts, see `beneath`."""
        return [(c.stage_class.adapter, c.folder.run(run).adapter) for c in self.beneath(run)]

    def expert_chain(self, run: str) -> list[tuple[str, Path]]:
        """The adapters that together are this experiment's expert of a specialty, or its agent, lowest first.

        One that trains an agent has no expert of its own, and the other way round.
        """
        makes = "agent" if run == AGENT else "expert"
        own = [(self.stage_class.adapter, self.folder.run(run).adapter)] if self.provides == makes else []
        return [*self.experts_beneath(run), *own]

    def result(self, specialty: str) -> dict[str, Any] | None:
        """The manifest of what a run has left, every file verified; None where it left nothing yet.

        Raises:
            DamagedError: a base is not as it was written.
            AdapterError: an expert is not.
        """
        run = self.folder.run(specialty)
        if self.provides == "base":
            return read_base(run.base) if is_base_complete(run.base) else None
        return result_of(run.adapter)

    def is_run_complete(self, specialty: str) -> bool:
        """Whether a run has left its result, of all its steps; where nothing is trained none is awaited."""
        if self.provides == "nothing":
            return True
        left = self.result(specialty)
        return left is not None and trained_steps(left, self.steps) >= self.steps

    def is_complete(self) -> bool:
        """Whether every expected run has."""
        return all(self.is_run_complete(run) for run in self.runs)

    @property
    def examined(self) -> dict[str, list[Path]]:
        """Row name -> the adapter folders that act together, of everything that this experiment examines.

        Raises:
            AdapterError: one of `adapters` is none, or its parent is not found.
        """
        if self.is_behind_endpoint:
            return {config_of(self.experiment.model).model: []}
        rows: dict[str, list[Path]] = {"base": []}
        for context in self.lineage:
            if context.provides == "expert":
                for specialty in context.specialties:
                    chain = [path for _, path in context.expert_chain(specialty)]
                    rows[f"{context.experiment.name}/{specialty}"] = chain
            if context.provides == "agent":
                rows[f"{context.experiment.name}/{AGENT}"] = [path for _, path in context.expert_chain(AGENT)]
            for merged in sorted(context.folder.path.glob("merged/*/adapter")):
                rows[f"{context.experiment.name}/merged/{merged.parent.name}"] = [merged]
            for merged in sorted(context.folder.path.glob("merged/*/rejected/adapter")):  # shown, never the result
                rows[f"{context.experiment.name}/merged/{merged.parents[1].name}.rejected"] = [merged]
        return rows | named_chains(self.experiment.adapters, rows, Path(self.experiment.runs_dir))


def contents(key: str, value: Any) -> Any:
    """A setting of a model; where it names a file or a folder, what that holds, so that the same weights are the same.

    Of a folder count the files that a model is read from, and no README beside them.

    Args:
        key: of the setting.
        value: of the setting.
    """
    if not isinstance(value, str) or not value or ("/" not in value and key not in PLACES):
        return value
    place = Path(value)
    if place.is_file():
        return file_sha256(place)
    if not place.is_dir():
        return value  # a name on a hub
    files = (file for file in sorted(place.iterdir()) if file.is_file() and file.suffix in READ)
    return {file.name: file_sha256(file) for file in files if not file.name.startswith(".")}


def steps_of(settings: Mapping[str, Any]) -> int:
    """Optimiser steps of each run under resolved settings."""
    return max(1, round(settings["trainer"]["max_steps"] * settings["budget"]))


def trained_steps(manifest: Mapping[str, Any], unknown: int) -> int:
    """Optimiser steps that made a result; `unknown` where its manifest is of a version that did not record them."""
    return int((manifest.get("extra") or {}).get("steps", unknown))

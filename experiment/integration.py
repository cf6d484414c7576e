"""What one agent for all specialties is made from: its teachers, and the adapter that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.adapter_files import AdapterError, adapter_sha256, is_complete, read_adapter, read_manifest
from artifacts.chains import adapter_folder
from artifacts.manifest import MANIFEST
from callbacks.merge_experts import MergeExperts
from configs.build import config_of, import_class
from configs.problems import ConfigError, Problem, did_you_mean
from configs.schema import adapter_faults
from experiment.lineage import Lineage
from experiment.reading import check_tokenizer
from lightning_modules.policy import Policy

FOUNDATIONS = "made_from"
"""Key of what a run's provenance, and the agent's manifest, record of it."""


def check_integration(context: Lineage) -> None:
    """Refuse an experiment whose agent could not be made, before anything is trained.

    Raises:
        ConfigError: a specialty has no expert beneath, only some specialties are asked for, or nothing that is called
            as `start` is there or will be.
    """
    if not context.integrates:
        return
    problems, experiment = [], context.experiment

    def problem(key: str, value: object, message: str, suggestion: str = "") -> None:
        problems.append(Problem(str(context.path), key, value, message, suggestion))

    if without := [name for name in context.specialties if not context.experts_beneath(name)]:
        message = (
            f"{experiment.module.class_path} learns from the expert of every specialty, and no required experiment "
            f"trains one of {', '.join(without)}"
        )
        problem("requires", experiment.requires, message)
    if experiment.only:
        message = "one run is over all specialties; take those that shall have no part out of `specialties` by null"
        problem("only", experiment.only, message)
    start = context.resolved["module"]["init_args"]["start"]
    if start and not is_folder(start) and start not in (known := merges_beneath(context)):
        message = f"no required experiment makes a merge of that name ({', '.join(known) or 'none makes any'})"
        problem("module.init_args.start", start, message, did_you_mean(start, known))
    for fault in adapter_faults(start) if is_folder(start) else ():
        problem("module.init_args.start", start, fault)
    if problems:
        raise ConfigError(problems)


def is_folder(start: str) -> bool:
    """Whether `start` is a path, not the name of a merge, which has no separator."""
    return "/" in start


def merges_beneath(context: Lineage) -> list[str]:
    """Names of the merges that the required experiments made, or will make."""
    found: dict[str, None] = {}
    for parent in context.lineage[:-1]:
        found.update(dict.fromkeys(path.name for path in sorted(parent.folder.path.glob("merged/[!.]*"))))
        found.update(dict.fromkeys(merges_of(parent)))
    return list(found)


def merges_of(context: Lineage) -> list[str]:
    """Names of the merges that an experiment is configured to make."""
    callbacks = [callback for callback in context.experiment.callbacks.values() if callback is not None]
    makers = [c for c in callbacks if issubclass(import_class(c.class_path), MergeExperts)]
    return [name for maker in makers for name in config_of(maker).names]


def start_places(context: Lineage) -> list[Path]:
    """Where the adapter may lie that the student starts from; of a merge's name, the newest experiment's first."""
    start = context.resolved["module"]["init_args"]["start"]
    if not start or is_folder(start):
        return [adapter_folder(Path(start))] if start else []
    merges = [parent.folder.merged(start) for parent in reversed(context.lineage[:-1])]
    return [inner for merge in merges for inner in (merge / "adapter", merge / "rejected" / "adapter")]


def start_of(context: Lineage) -> Path | None:
    """The adapter that the student starts from; None where it starts from zero.

    Raises:
        AdapterError: there is none at that place, or it is an expert that stands on another one.
    """
    places = start_places(context)
    if not places:
        return None
    found = next((place for place in places if (place / MANIFEST).exists()), None)
    if found is None:
        raise AdapterError(f"there is no merged agent to start from; looked for {', '.join(map(str, places))}")
    if read_manifest(found)["parent"]:
        raise AdapterError(
            f"{found}: grew from another adapter, beneath which it acts; the student starts from one that stands on "
            "the bare base, such as a merged agent or a DSA expert"
        )
    return found


def stands(context: Lineage) -> bool:
    """Whether all that the agent is made from is there."""
    places = start_places(context)
    teachers = [path for specialty in context.specialties for _, path in context.experts_beneath(specialty)]
    return all(map(is_complete, teachers)) and (not places or any(map(is_complete, places)))


def is_ready(context: Lineage) -> bool:
    """Whether what the agent starts from is made: a merge of that name by the last experiment that makes one."""
    start = context.resolved["module"]["init_args"]["start"]
    makers = [parent for parent in context.lineage[:-1] if start in merges_of(parent)]
    newest = [makers[-1].folder.merged(start) / inner for inner in ("adapter", "rejected/adapter")] if makers else []
    return stands(context) and (not newest or any(map(is_complete, newest)))


def foundations(context: Lineage) -> dict[str, Any]:
    """Hashes of the teachers and of the start; a teacher's is of all adapters that are it together."""
    start = start_of(context)
    teachers = {
        specialty: [adapter_sha256(path) for _, path in context.experts_beneath(specialty)]
        for specialty in context.specialties
    }
    return {"teachers": teachers, "start": None if start is None else adapter_sha256(start)}


def attach_teachers(context: Lineage, policy: Policy, fingerprint: str) -> Mapping[str, tuple[str, ...]]:
    """Load what the agent is made from; the start under the name of the adapter that learns.

    Returns:
        Specialty -> names of the adapters that are its expert together.

    Raises:
        AdapterError: one is missing, damaged, or belongs to another base.
    """
    start = start_of(context)
    if start is not None:
        attach(policy, context.stage_class.adapter, start, fingerprint)
    found: dict[str, tuple[str, ...]] = {}
    for specialty in context.specialties:
        chain = context.experts_beneath(specialty)
        found[specialty] = tuple(f"{specialty}_{name}" for name, _ in chain)
        for name, (_, folder) in zip(found[specialty], chain, strict=True):
            attach(policy, name, folder, fingerprint)
    return found


def attach(policy: Policy, name: str, folder: Path, fingerprint: str | None) -> None:
    """Load one adapter, frozen and inactive; errors as of `attach_teachers`."""
    adapter = read_adapter(folder, base_fingerprint=fingerprint)
    check_tokenizer(folder, adapter.manifest, policy)
    policy.load_adapter(name, adapter.config, adapter.tensors)

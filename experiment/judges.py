"""Reward models that grade an experiment's rollouts: found, checked, loaded, and recorded with what they judged."""

from __future__ import annotations

from pathlib import Path

from artifacts.adapter_files import AdapterError, adapter_sha256, read_manifest
from artifacts.head_files import read_head
from configs.build import import_class
from configs.problems import ConfigError, Problem
from configs.schema import adapter_faults
from experiment.integration import attach
from experiment.lineage import Lineage
from lightning_modules.judge import Judge, judge_folder
from lightning_modules.policy import Policy

JUDGED_BY = "judged_by"
"""Key of what a run's provenance, and its adapter's manifest, record of them."""


def judge_models(context: Lineage) -> list[str]:
    """Folders of the reward models among an experiment's reward terms, as they are named."""
    settings = context.resolved.get("module") or {}
    terms = settings.get("init_args", {}).get("rewards") or ()
    return [term["init_args"]["model"] for term in terms if issubclass(import_class(term["class_path"]), Judge)]


def check_judges(context: Lineage) -> None:
    """Refuse reward models that are not there or cannot act here, before anything is trained.

    Raises:
        ConfigError: says which, and how one is made.
    """
    problems = []
    for model in judge_models(context):
        faults = list(adapter_faults(model))
        if not faults:
            try:
                folder = judge_folder(model)
                read_head(folder)
                if read_manifest(folder)["parent"]:
                    faults = [f"{model} grew from another adapter; a judge stands on the bare base"]
            except AdapterError as error:
                faults = [str(error)]
        told = "; train one first, as by `python train.py --config judge_tiny.yaml`"
        problems += [
            Problem(str(context.path), "module.init_args.rewards", model, f"{fault}{told}") for fault in faults
        ]
    if len(judge_models(context)) > 1:
        message = "one reward model can act beside the policy; name one"
        problems.append(Problem(str(context.path), "module.init_args.rewards", judge_models(context), message))
    if problems:
        raise ConfigError(problems)


def attach_judges(context: Lineage, policy: Policy, fingerprint: str | None) -> None:
    """Load them beside the policy's adapters, frozen and inactive.

    Args:
        context: of the experiment.
        policy: on its base.
        fingerprint: of the base; None where it stands in for one that is not trained yet, and nothing is meant.

    Raises:
        AdapterError: one is damaged, or belongs to another base.
    """
    for model in judge_models(context):
        attach(policy, Judge.adapter, judge_folder(model), fingerprint)


def judged_by(context: Lineage) -> list[dict[str, str]]:
    """Hashes of the reward models, of adapter and head; empty where there is none."""
    folders: list[Path] = [judge_folder(model) for model in judge_models(context)]
    return [{"adapter": adapter_sha256(folder), "head": read_head(folder)[1]["sha256"]} for folder in folders]

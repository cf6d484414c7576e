"""One agent trained on the data of all specialties together, by a stage that otherwise makes an expert of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from callbacks.merge_experts import MergeExperts
from configs.build import config_of, import_class
from configs.problems import ConfigError, Problem
from configs.schema import AGENT, Experiment
from experiment.lineage import Lineage

CHOOSING = {"dynamic_share": 0.0, "curriculum": False, "pass_rate": (0.0, 1.0)}
"""Settings that choose questions of one specialty, and what they are where they choose none."""


def check_joint(context: Lineage) -> None:
    """Refuse a joint run that could not be made, or experts on top of one, before anything is trained.

    Raises:
        ConfigError: names every setting.
    """
    found = joint_faults(context) if context.is_joint else faults_above_joint(context)
    if problems := [Problem(str(context.path), key, value, message) for key, value, message in found]:
        raise ConfigError(problems)


def faults_above_joint(context: Lineage) -> Iterator[tuple[str, object, str]]:
    """(key, value, message) of what is wrong with an experiment that is not joint itself."""
    joint = [c.experiment.name for c in context.lineage[:-1] if c.is_joint]
    if context.provides == "expert" and joint:
        message = (
            f"{joint[0]} makes one agent of all specialties, and an expert of one specialty does not stand on it; set "
            "train: mixed or sequential here too, or require experts"
        )
        yield "requires", context.experiment.requires, message


def joint_faults(context: Lineage) -> Iterator[tuple[str, object, str]]:
    """(key, value, message) of what is wrong with a joint experiment."""
    experiment, own = context.experiment, context.stage_class.provides
    if own != "expert":
        what = "a base" if own == "base" else "one agent of all specialties anyway"
        yield "train", experiment.train, f"{experiment.module.class_path} makes {what}; leave train at `each`"
        return
    experts = [c.experiment.name for c in context.lineage[:-1] if c.provides == "expert"]
    if experts and not context.beneath(AGENT):
        message = (
            f"{experts[0]} trains an expert of each specialty, and one agent of all does not stand on them; require an "
            "experiment with train: mixed or sequential, or a base"
        )
        yield "requires", experiment.requires, message
    if experiment.only:
        message = "one run is over all specialties; take those that shall have no part out of `specialties` by null"
        yield "only", experiment.only, message
    if experiment.train == "sequential" and context.steps < len(context.specialties):
        message = f"{context.steps} steps are too few for {len(context.specialties)} specialties one after the other"
        yield "trainer.max_steps", experiment.trainer.get("max_steps"), message
    config, sets = config_of(experiment.module), len(context.specialties)
    if experiment.train == "sequential":
        yield from cut_short(experiment, config)
    of_rl = hasattr(config, "questions_per_step")
    given = context.resolved["specialties"][context.specialties[0]]["init_args"]["batch_size"]
    if experiment.train == "mixed" and (size := config.questions_per_step if of_rl else given) % sets:
        key = "module.init_args.questions_per_step" if of_rl else "data.batch_size"
        yield key, size, f"a step takes as much of each of {sets} specialties; give a multiple of {sets}"
    yield from joint_parts(experiment)


def cut_short(experiment: Experiment, config: Any) -> Iterator[tuple[str, object, str]]:
    """The same of what would end a sequential run before the last specialties had their turn."""
    if experiment.fit.patience:
        yield "fit.patience", experiment.fit.patience, "it may end the run before each specialty had its turn; set 0"
    for key in ("minibatches", "updates_per_rollout"):
        if (value := getattr(config, key, 1)) != 1:
            message = "one specialty after the other, a step is one update, as trainer.max_steps counts updates; set 1"
            yield f"module.init_args.{key}", value, message


def joint_parts(experiment: Experiment) -> Iterator[tuple[str, object, str]]:
    """The same of its module's settings and of its callbacks."""
    config = config_of(experiment.module)
    for key, none in CHOOSING.items():
        if (value := getattr(config, key, none)) != none:
            yield (
                f"module.init_args.{key}",
                value,
                "it chooses questions of one specialty, and this run is over several",
            )
    for name, callback in experiment.callbacks.items():
        if callback is not None and issubclass(import_class(callback.class_path), MergeExperts):
            yield f"callbacks.{name}", callback.class_path, "one agent leaves nothing to merge; set it to null"

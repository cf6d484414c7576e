"""Judges that grade an experiment's rollouts: checked, loaded where they act here, recorded with what they judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.build import config_of
from configs.problems import ConfigError, Problem
from experiment.integration import attach
from experiment.lineage import Lineage
from lightning_modules.judge import Judge
from lightning_modules.parts import part
from lightning_modules.policy import Policy
from lightning_modules.rewards.term import RewardTerm
from lightning_modules.rl_parts import RLParts
from lightning_modules.rl_settings import RLSettings

JUDGED_BY = "judged_by"
"""Key of what a run's provenance, and its adapter's manifest, record of them."""


def terms_of(context: Lineage) -> list[RewardTerm]:
    """An experiment's reward terms; none where its module has no rewards."""
    module = context.experiment.module
    settings = config_of(module) if module is not None else None
    given = settings.rewards if isinstance(settings, RLSettings) else ()
    return [part(spec, RewardTerm, "rewards") for spec in given]


def judge_models(context: Lineage) -> list[Judge]:
    """The reward models among an experiment's reward terms, which act on its own base."""
    return [term for term in terms_of(context) if isinstance(term, Judge)]


def check_judges(context: Lineage) -> None:
    """Refuse judges that are not there or cannot act, before anything is trained.

    Raises:
        ConfigError: says which, and what would do.
    """
    problems = []
    for term in terms_of(context):
        try:
            term.check()
        except ValueError as error:
            problems.append(Problem(str(context.path), "module.init_args.rewards", term.name, str(error)))
    if problems:
        raise ConfigError(problems)


def attach_judges(context: Lineage, policy: Policy, fingerprint: str | None) -> None:
    """Load reward models beside the policy's adapters, frozen and inactive.

    Args:
        context: of the experiment.
        policy: on its base.
        fingerprint: of the base; None where it stands in for one that is not trained yet, and nothing is meant.

    Raises:
        AdapterError: one is damaged, or belongs to another base.
    """
    for term in judge_models(context):
        attach(policy, Judge.adapter, term.folder, fingerprint)


def judged_by(context: Lineage) -> list[Mapping[str, Any]]:
    """What the judges are: hashes of a reward model's adapter and head, or who is asked what; empty without any."""
    return [dict(identity) for term in terms_of(context) if (identity := term.identity) is not None]


def plans(context: Lineage, steps: int) -> list[str]:
    """What so many steps would ask of judges elsewhere, at most, in words; nothing where there is none."""
    module = context.experiment.module
    settings = config_of(module) if module is not None else None
    if not isinstance(settings, RLSettings):
        return []
    rollouts = RLParts.of(settings).layout.size * settings.questions_per_step
    if settings.dynamic_share:
        rollouts *= 1 + settings.dynamic_rounds
    return [plan for term in terms_of(context) if (plan := term.plan(steps * rollouts))]

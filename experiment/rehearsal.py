"""One step of a run in a temporary folder: what it takes, and whether it works at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from answering.asking import ask
from answering.decoding import Decoding
from answering.live_base import LiveBase
from artifacts.adapter_files import read_adapter
from artifacts.base_files import is_base_complete
from configs.build import build, config_of
from configs.schema import AGENT
from datamodules.batch import Example
from experiment.context import ExperimentContext
from experiment.fit import quiet_lightning, trainer_of
from experiment.integration import stands
from experiment.judges import attach_judges
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.nf4 import numbers
from lightning_modules.policy import Policy
from lightning_modules.stage import Stage

MOST_STEPS, ENOUGH_SECONDS = 2, 5.0
"""Steps that are taken, the first of which warms up; one is enough where it takes long."""
PROBES, FEW_TOKENS = 16, 8
"""Questions that are asked, and tokens that are written, to measure how long an answer takes."""


@dataclass(frozen=True)
class Rehearsal:
    """What one step told.

    Attributes:
        step_seconds: of the fastest step taken.
        base: parameters of the base.
        trained: parameters that are trained.
        stand_ins: what was made fresh because it is not trained yet; steps take as long, rollouts run to their limit.
        policy: the model, as the step left it.
    """

    step_seconds: float
    base: int
    trained: int
    stand_ins: tuple[str, ...]
    policy: Policy


class FewSteps(L.Callback):
    """Times steps, and stops the Trainer after a few."""

    def __init__(self) -> None:
        """Time nothing yet."""
        self.seconds: list[float] = []

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.began = time.monotonic()

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.seconds.append(time.monotonic() - self.began)
        if len(self.seconds) >= MOST_STEPS or sum(self.seconds) >= ENOUGH_SECONDS:
            trainer.should_stop = True


def rehearse(context: ExperimentContext, specialty: str, live: LiveBase) -> Rehearsal:
    """Build a run's stage and Trainer as `experiment.fit` does, and take a step or two on its first batches.

    What a required experiment has not trained yet is stood in for: by fresh base weights, or a fresh adapter of the
    same shape. Nothing is written outside a temporary folder. Several devices are rehearsed on one.

    Args:
        context: of the experiment.
        specialty: the run.
        live: holds the base for the next one that has the same.

    Raises:
        Exception: whatever the run would raise; a note says where.
    """
    with TemporaryDirectory() as folder, noted(f"in the dry run of {context.experiment.name}/{specialty}"):
        aside = moved(context, folder)
        aside.folder.run(specialty).path.mkdir(parents=True)
        L.seed_everything(aside.experiment.seed, workers=True, verbose=False)
        policy, fingerprint, stand_ins = base_of(aside, live)
        base = sum(map(numbers, policy.family.parameters()))
        stage, adapters = stage_on(aside, specialty, policy, fingerprint, fresh=bool(stand_ins))
        stage.rehearse()
        trained = sum(parameter.numel() for parameter in stage.parameters() if parameter.requires_grad)
        quiet_lightning()
        data = aside.training_data(specialty)
        few = FewSteps()
        trainer = trainer_on_one_device(aside, folder, [few, *aside.callbacks()])
        trainer.fit(stage, datamodule=data)
        data.trainer = None  # it would keep the model alive
        if trainer.global_step == 0:
            raise RuntimeError("the first updates were skipped because their gradient was not finite")
    return Rehearsal(min(few.seconds), base, trained, (*stand_ins, *adapters), policy)


def moved(context: ExperimentContext, folder: str) -> ExperimentContext:
    """The same experiment with another folder for all that it writes; what it requires stays where it is."""
    return replace(context, experiment=replace(context.experiment, runs_dir=folder, feature_cache=""))


def base_of(context: ExperimentContext, live: LiveBase) -> tuple[Policy, str, tuple[str, ...]]:
    """The bare base, its fingerprint, and what had to be made fresh for it."""
    base = context.base_folder
    trained = base is None or is_base_complete(base)
    model = json.dumps(context.resolved["model"], sort_keys=True)
    packs = context.provides != "base" and '"quantize": "nf4"' in model
    key = f"{model} {context.experiment.precision} {base if trained else None} {packs}"
    policy, fingerprint = live.of(key, lambda: context.load(base if trained else None))
    policy.bare()
    return policy, fingerprint, () if trained else ("base",)


def stage_on(
    context: ExperimentContext, specialty: str, policy: Policy, fingerprint: str, *, fresh: bool
) -> tuple[Stage, tuple[str, ...]]:
    """The stage, and the names of the adapters beneath it that had to be made fresh.

    Args:
        context: of the experiment.
        specialty: the run.
        policy: bare.
        fingerprint: of its base.
        fresh: whether the base is made fresh, which no finished adapter fits.

    Raises:
        AdapterError: a finished adapter beneath is damaged, or belongs to another base.
    """
    if context.integrates:
        return agent_on(context, policy, fingerprint, fresh=fresh)
    start: list[str] = []
    made: list[str] = []
    for parent in context.beneath(specialty):
        name = parent.stage_class.adapter
        if fresh or parent.result(specialty) is None:
            own = parent.stage_context(policy, start, specialty)
            build(parent.experiment.module, context=own)  # attaches its adapter
            made.append(name)
        else:
            adapter = read_adapter(parent.folder.run(specialty).adapter, base_fingerprint=fingerprint)
            policy.load_adapter(name, adapter.config, adapter.tensors)
        start.append(name)
    attach_judges(context, policy, None if fresh else fingerprint)
    own = context.stage_context(policy, start, specialty)
    return build(context.experiment.module, context=own), tuple(made)


def agent_on(
    context: ExperimentContext, policy: Policy, fingerprint: str, *, fresh: bool
) -> tuple[Stage, tuple[str, ...]]:
    """As `stage_on`, of the run over all specialties: every teacher has a stand-in unless all that it needs is there.

    A start that is not merged yet has none: the student then starts from zero, with the rank that is set for that.
    """
    chains = {specialty: context.experts_beneath(specialty) for specialty in context.specialties}
    if not fresh and stands(context):
        return context.stage(AGENT, policy, fingerprint), ()
    teachers = {specialty: tuple(f"{specialty}_{name}" for name, _ in chain) for specialty, chain in chains.items()}
    for parent in context.lineage[:-1]:
        for specialty in parent.specialties if parent.provides == "expert" else ():
            settings = config_of(parent.experiment.module)
            shape = LoRASettings(settings.lora_rank, settings.lora_alpha, settings.lora_seed)
            policy.add_adapter(f"{specialty}_{parent.stage_class.adapter}", shape)
    own = context.stage_context(policy, (), AGENT, teachers)
    return build(context.experiment.module, context=own), ("set of teachers",)


def trainer_on_one_device(context: ExperimentContext, folder: str, callbacks: list[L.Callback]) -> L.Trainer:
    """The run's Trainer, or where it has several devices, after it was built, one like it for one device."""
    arguments = {
        "logger": TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        "callbacks": callbacks,
        "default_root_dir": folder,
        "enable_progress_bar": False,
    }
    trainer = trainer_of(context, **arguments)
    if trainer.world_size == 1:
        return trainer
    return trainer_of(context, **arguments, devices=1, num_nodes=1, strategy="auto")


def answer_seconds(policy: Policy, questions: list[Example], max_new_tokens: int) -> float:
    """Seconds per answer that is as long as it may be, from a few short ones; an upper bound.

    Args:
        policy: asked under its active adapters.
        questions: at least one.
        max_new_tokens: limit of an answer.
    """
    few = questions[:PROBES]
    times = []
    for tokens in (1, 1, FEW_TOKENS):  # the first warms up
        began = time.monotonic()
        ask(policy, few, "", Decoding(tokens))
        times.append(time.monotonic() - began)
    per_token = max(0.0, times[2] - times[1]) / (FEW_TOKENS - 1)
    return (times[1] + per_token * (max_new_tokens - 1)) / len(few)


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Say in an error where it came from."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise

"""One `Trainer.fit`: one specialty of one experiment, from the interrupted run's checkpoint to the saved result."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy

from artifacts.checkpoints import Checkpoints
from artifacts.durable import named, write_text
from artifacts.folders import locked, write_failure
from artifacts.interrupts import Waiting, deferred
from artifacts.ranks import is_first, wait_for_first
from callbacks.best_weights import BestWeights
from callbacks.last_validation import LastValidation
from callbacks.own_signals import OwnSignals
from callbacks.phase_times import PhaseTimes
from callbacks.progress import PlainProgress, StepBar
from callbacks.resume_point import ResumePoint, resumed_step
from configs.schema import AGENT, Experiment, Fit, seconds_of
from datamodules.base import VQADataModule
from experiment.context import ExperimentContext
from experiment.continuation import continuations
from experiment.curves import tensorboard
from experiment.integration import FOUNDATIONS, foundations
from experiment.judges import JUDGED_BY, judged_by
from experiment.loggers import further_loggers
from experiment.memory_choice import within_memory
from experiment.provenance import provenance
from experiment.question_choice import chosen_questions
from experiment.reading import TOKENIZER, reading_of
from experiment.result import Kept, save_result
from experiment.standing import BASE, PARENT, ROWS, check_base, parent_sha256, read_provenance
from guards.telling import doing
from lightning_modules.sharding import NAME as FSDP2
from lightning_modules.sharding import ShardedBase
from lightning_modules.stage import Stage


def train(context: ExperimentContext, specialty: str) -> None:
    """One `Trainer.fit`: from the interrupted run's checkpoint if there is one, to the saved result."""
    experiment, run = context.experiment, context.folder.run(specialty)
    if not is_first() and not has_several_devices(experiment):
        wait_for_first(lambda: context.is_run_complete(specialty))
        return
    with locked(run.path, f"{experiment.name}/{specialty}") if is_first() else nullcontext():
        if context.is_run_complete(specialty):
            return
        started = time.monotonic()
        run.set_status("running")
        try:
            with named(run.path):  # curves are written by a thread that does not say where
                with doing(f"{experiment.name}/{specialty}: training"):
                    _fit(context, specialty)
            if context.provides == "base" or experiment.trainer.get("strategy") == FSDP2:
                context.live.clear()  # its weights are those of the run now, or lie in parts on several devices
        except BaseException as error:
            write_failure(run.path, error)
            raise
        run.set_status("finished", seconds=round(time.monotonic() - started, 1))


def _fit(context: ExperimentContext, specialty: str) -> None:
    experiment, run = context.experiment, context.folder.run(specialty)
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    context = within_memory(context, specialty, run.path)
    data = context.training_data(specialty)
    questions = chosen_questions(context, specialty)  # may ask the model, with the base whole
    with doing(f"{experiment.name}/{specialty}: loading the model"):
        policy, fingerprint = context.policy(blocks_in_files=experiment.trainer.get("strategy") == FSDP2)
    policy.bare()  # whoever came before, in the same process, left adapters
    stage = context.stage(specialty, policy, fingerprint)
    stage.questions = questions
    before, steps = read_provenance(run), context.steps
    tokenizer = reading_of(policy)[TOKENIZER]
    check_base(run, before, fingerprint, tokenizer)
    facts = provenance(Path(experiment.runs_dir))
    facts |= {
        BASE: fingerprint,
        TOKENIZER: tokenizer,
        ROWS: context.rows_sha256(specialty),
        PARENT: parent_sha256(context, specialty),
    }
    if context.integrates:
        facts[FOUNDATIONS] = foundations(context)
    if stage.feed().kind == "rows" and (taught := taught_by(context, specialty)):
        facts["taught"] = taught
        if is_first():
            print(f"{experiment.name}/{specialty}: {taught_line(taught)}", flush=True)
    if judges := judged_by(context):
        facts[JUDGED_BY] = judges
    facts |= {"steps": steps, "continuations": continuations(run, before, steps, Path(experiment.runs_dir))}
    if is_first():
        write_text(run.path / "config.resolved.json", json.dumps(context.resolved, indent=2) + "\n")
        write_text(run.path / "provenance.json", json.dumps(facts, indent=2) + "\n")
    quiet_lightning()
    resume = str(run.checkpoint) if run.checkpoint.exists() else None
    curves = tensorboard(context, specialty, resumed_step(run.checkpoint, steps))
    with deferred() as waiting, closing(curves), further_loggers(context, specialty) as others:
        best, last = best_checkpoint(experiment.fit, data, run.checkpoint.parent), LastValidation()
        callbacks = callbacks_of(context, specialty, waiting, [last] if best is None else [last, best])
        trainer = trainer_of(context, logger=[curves, *others], callbacks=callbacks)
        if resume is None:
            with doing(f"{experiment.name}/{specialty}: validation before the first step"):  # what the run starts from
                trainer.validate(stage, datamodule=data, verbose=False)
        trainer.fit(stage, datamodule=data, ckpt_path=resume, weights_only=True)
        if trainer.global_step < trainer.max_steps and not trainer.should_stop:
            raise RuntimeError(
                f"{experiment.name}/{specialty} stopped at step {trainer.global_step} of {trainer.max_steps}: too many "
                "updates were skipped because a number in them was not finite; is learning_rate too high?"
            )
        kept = kept_weights(stage, best, last.metrics or trainer.callback_metrics)
        if trainer.is_global_zero:
            save_result(context, specialty, stage, kept, fingerprint=fingerprint, provenance=facts)
        trainer.strategy.barrier("the result stands")
    data.trainer = None  # it would keep the model alive


def taught_by(context: ExperimentContext, specialty: str) -> dict[str, int]:
    """Questions to imitate by what they have to go by, where the set tells kinds apart; of an agent, all sets'."""
    names = context.specialties if specialty == AGENT else [specialty]
    return dict(sum((Counter(context.data(name).taught()) for name in names), Counter()))


def taught_line(taught: Mapping[str, int]) -> str:
    """The same in words.

    Examples:
        >>> taught_line({"answers_alone": 33})
        'answer-only SFT: no worked chains, so that the answers alone of 33 training questions are taught'
        >>> taught_line({"chains": 20, "answers_alone": 13})
        'SFT on the worked chains of 20 training questions, and on the answers alone of 13 that have none'
    """
    chains, alone, left = (taught.get(name, 0) for name in ("chains", "answers_alone", "not_imitated"))
    said = f"SFT on the worked chains of {chains} training questions"
    if not chains:
        said = f"answer-only SFT: no worked chains, so that the answers alone of {alone} training questions are taught"
    elif alone:
        said += f", and on the answers alone of {alone} that have none"
    return said + (f"; {left} more have neither, and are not imitated" if left else "")


def trainer_of(context: ExperimentContext, **arguments: Any) -> L.Trainer:
    """Lightning's Trainer of one run.

    Args:
        context: of the experiment, whose section `trainer` holds.
        arguments: further arguments of the Trainer, over those.
    """
    experiment, steps = context.experiment, context.steps
    given = {"devices": 1, "deterministic": True} | experiment.trainer
    given |= {"strategy": strategy_of(experiment), "max_steps": steps}
    return L.Trainer(
        **(given | arguments),
        plugins=Checkpoints(),
        max_epochs=1,
        check_val_every_n_epoch=None,
        val_check_interval=validation_interval(experiment.fit, steps),
        num_sanity_val_steps=0,  # the validation before the first step is a whole one
        inference_mode=False,  # its picture features are kept, and training differentiates through them
        use_distributed_sampler=False,  # the loaders know the devices
        enable_model_summary=False,
    )


def callbacks_of(
    context: ExperimentContext, specialty: str, waiting: Waiting, keepers: list[L.Callback]
) -> list[L.Callback]:
    """Everything that listens to one run, in order.

    Args:
        context: of the experiment.
        specialty: the run.
        waiting: tells whether a signal waits.
        keepers: what decides which weights and metrics become the result.
    """
    experiment, run, fit = context.experiment, context.folder.run(specialty), context.experiment.fit
    name, counted = f"{experiment.name}/{specialty}", fit.val_every if isinstance(fit.val_every, int) else 0
    return [
        OwnSignals(waiting.take),
        *context.callbacks(),
        PhaseTimes(name, run.path / "timings.json"),
        progress(name),
        *keepers,
        *early_stopping(fit, specialty),
        ResumePoint(run.checkpoint, fit.checkpoint_every_steps, fit.checkpoint_every_minutes, counted, waiting),
    ]


def has_several_devices(experiment: Experiment) -> bool:
    """Whether the run may have more than one process."""
    devices = experiment.trainer.get("devices", 1)
    alone = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    return not alone or experiment.trainer.get("num_nodes", 1) > 1


def strategy_of(experiment: Experiment) -> Any:
    """Lightning's strategy: the one asked for, with plain DDP as our stages need it."""
    asked, hours = experiment.trainer.get("strategy", "auto"), timedelta(hours=2)
    if asked not in ("auto", "ddp", FSDP2) or not has_several_devices(experiment):
        return asked
    if asked == FSDP2:
        return ShardedBase(broadcast_buffers=False, timeout=hours)
    # Buffers are constants; sent around at every forward pass, devices with unequal numbers of batches would hang. The
    # first device merges and examines what the others wait for.
    return DDPStrategy(broadcast_buffers=False, timeout=hours)


def validation_interval(fit: Fit, steps: int) -> int | timedelta:
    """Batches or time between two validations; more batches than there are leave the first and the last."""
    if isinstance(fit.val_every, str):
        return timedelta(seconds=seconds_of(fit.val_every))
    return fit.val_every or 2 * steps + 1


def best_checkpoint(fit: Fit, data: VQADataModule, folder: Path) -> BestWeights | None:
    """Keeps the weights of the best validation, where these become the result.

    Raises:
        ValueError: there is no validation question.
    """
    if (fit.keep == "best" or fit.patience) and not data.val_examples():
        raise ValueError(
            f"specialty {data.specialty!r}: fit.keep=best and fit.patience need validation questions, of which "
            "there are none; is val_fraction above 0?"
        )
    if fit.keep == "last":
        return None
    return BestWeights(
        folder,
        "best-{step}",
        monitor=f"val/accuracy/{data.specialty}",
        mode="max",
        save_top_k=1,
        auto_insert_metric_name=False,
        save_on_train_epoch_end=False,
        enable_version_counter=False,  # a resumed run writes the same file anew
    )


def early_stopping(fit: Fit, specialty: str) -> list[EarlyStopping]:
    """Ends the run when validations do not get better, where that is asked for."""
    if not fit.patience:
        return []
    monitor = f"val/accuracy/{specialty}"
    return [EarlyStopping(monitor, patience=fit.patience, mode="max", check_on_train_epoch_end=False)]


def kept_weights(stage: Stage, best: BestWeights | None, metrics: Mapping[str, Any]) -> Kept:
    """Leave the weights in the stage that the result shall have, and say which they are.

    Args:
        stage: with its last weights.
        best: knows the best checkpoint, where that is kept.
        metrics: of the last step.
    """
    if best is None:
        shown = {key: float(value) for key, value in metrics.items()}
        return Kept("last", stage.batches_done, stage.last_validation, shown)
    found = Checkpoints().load_checkpoint(best.best_model_path)
    stage.load_state_dict(found["state_dict"], strict=False)
    return Kept("best", found["batches_done"], found["validation"], {})


def progress(name: str) -> L.Callback:
    """A bar for a person, lines for a log."""
    return StepBar(refresh_rate=5) if sys.stderr.isatty() else PlainProgress(name)


def quiet_lightning() -> None:
    """Silence what Lightning says at every fit about devices and other products; its warnings of substance stay."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        ".*overridden `transfer_batch_to_device`.*",
        ".*across ranks is zero.*",  # a set that has nothing to validate says so by itself (`expected_splits`)
    ):
        warnings.filterwarnings("ignore", message=message)

"""Arguments of Lightning's Trainer that an experiment may give, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from configs.check import Checker
from configs.problems import Report
from guards.printable import shown
from guards.ranges import Ranged, at_least


class TakenPrecision:
    """Beside `precision`: why the others of Lightning's are refused."""

    def fault(self, name: str, value: Any) -> str:
        """What is wrong with a precision; empty where it is taken."""
        if value in PRECISIONS or value is None:
            return ""
        allowed = "; allowed are " + ", ".join(dict.fromkeys(str(choice) for choice in PRECISIONS))
        if str(value).partition("-")[0] not in ("16", "bf16", "64", "transformer"):
            return f"expected a precision of Lightning's Trainer, got {shown(value)}{allowed}"
        reason, instead = SCALED if str(value).startswith("16-mixed") else HALVED
        return f"refused: {value} {reason}{allowed}; write instead: {instead}"


@dataclass(frozen=True)
class TrainerArguments(Ranged):
    """What goes to the Trainer as it is written; where nothing is, Lightning's own default holds."""

    max_steps: Annotated[int, at_least(1)] = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    devices: list[int] | int | str = "auto"
    num_nodes: Annotated[int, at_least(1)] = 1
    precision: Annotated[int | str | None, TakenPrecision()] = None
    log_every_n_steps: Annotated[int, at_least(0)] | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    profiler: str | None = None
    detect_anomaly: bool = False


TAKEN = tuple(field.name for field in fields(TrainerArguments))

STEPS = "a run is measured in optimiser steps", "trainer.max_steps"
VALIDATION = "how often validation questions are asked belongs to the fit", "fit.val_every"
CLIPPING = "every stage optimises by itself, and clips its gradient itself", "module.init_args.max_grad_norm"
BATCHES = "batches are drawn by seed and step, so that a resumed run sees the same ones", "data.batch_size"
OWN = "the experiment sets it"
REFUSED: dict[str, tuple[str, str]] = {
    "accumulate_grad_batches": (
        "every stage optimises by itself, one step per batch in as many pieces as its tokens need",
        "data.batch_size for the batch, module.init_args.micro_batch_tokens for the pieces",
    ),
    "gradient_clip_val": CLIPPING,
    "gradient_clip_algorithm": ("gradients are clipped by their norm", "module.init_args.max_grad_norm"),
    "max_epochs": STEPS,
    "min_epochs": STEPS,
    "min_steps": STEPS,
    "limit_train_batches": STEPS,
    "max_time": (
        "a run that ends early leaves no result",
        "a signal (SIGTERM) when the time is up: the same command goes on where it stopped",
    ),
    "val_check_interval": VALIDATION,
    "check_val_every_n_epoch": VALIDATION,
    "limit_val_batches": VALIDATION,
    "num_sanity_val_steps": VALIDATION,
    "limit_test_batches": ("the Trainer tests nothing here", "callbacks.<name>.init_args.n of what examines"),
    "limit_predict_batches": ("the Trainer predicts nothing here", "callbacks.<name>.init_args.n of what examines"),
    "overfit_batches": BATCHES,
    "reload_dataloaders_every_n_epochs": BATCHES,
    "use_distributed_sampler": ("each step's questions are dealt to the devices already", "trainer.devices"),
    "fast_dev_run": ("it would leave a result of one step", "--dry-run, which takes a step and leaves nothing"),
    "enable_checkpointing": (f"{OWN}: each run keeps checkpoints/last.ckpt", "nothing"),
    "enable_progress_bar": (f"{OWN}: a bar in a terminal, lines in a log", "nothing"),
    "enable_model_summary": (f"{OWN}", "--dry-run, which counts parameters"),
    "enable_autolog_hparams": (
        f"{OWN}: settings stand in experiment.json and, as far as they differ, in the HParams table",
        "nothing",
    ),
    "inference_mode": (f"{OWN}: picture features that validation keeps are trained through", "nothing"),
    "logger": (f"{OWN}: each run has its TensorBoard folder", "further ones under `logger` at the top level"),
    "callbacks": (OWN, "the section `callbacks`"),
    "default_root_dir": (OWN, "runs_dir and name"),
    "model_registry": ("results lie in the experiment's folder", "runs_dir and name"),
    "plugins": ("a plugin may change what is computed and how it is kept", "trainer.strategy or precision"),
    "barebones": ("a run without logger and callbacks leaves no result", "nothing"),
    "sync_batchnorm": ("no model here has batch normalisation", "nothing"),
}
"""Argument -> (why it is refused, what to write instead)."""

PRECISIONS = ("32-true", "32", 32, "bf16-mixed")
"""Those that keep adapters and optimiser in fp32, and need no scaling of the loss."""
HALVED = (
    "would round adapters and optimiser too",
    "precision=bf16 of the experiment, which keeps the frozen base weights in bf16 and adapters in fp32",
)
SCALED = (
    "scales the loss, which every stage would have to undo before it clips",
    "trainer.precision=bf16-mixed, or precision=bf16 of the experiment",
)


def check_trainer(given: Mapping[str, Any], checker: Checker, report: Report, *, training: bool) -> dict[str, Any]:
    """Check the section `trainer` by the two tables above.

    Args:
        given: argument -> value.
        checker: checks what is taken.
        report: takes what is wrong.
        training: whether the experiment trains, and so needs `max_steps`.

    Returns:
        What is right in it.
    """
    for name in [name for name in given if name in REFUSED]:
        reason, instead = REFUSED[name]
        hint = "leave it out" if instead == "nothing" else f"write instead: {instead}"
        report(f"trainer.{name}", given[name], f"refused: {reason}", hint)
    if training and "max_steps" not in given:
        report("trainer.max_steps", None, "missing; an experiment with a module needs its optimiser steps, at least 1")
    taken = {name: value for name, value in given.items() if name not in REFUSED}
    return checker.fields(TrainerArguments, taken, "trainer", "the section trainer")

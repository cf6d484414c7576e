"""Arguments of Lightning's Trainer that an experiment may give, and why the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.annotations import expected
from configs.check import check
from configs.problems import Report, unknown_key
from configs.signature import signature

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"

TAKEN = (
    "accelerator strategy devices num_nodes precision max_steps log_every_n_steps deterministic benchmark "
    "profiler detect_anomaly"
).split()
"""Arguments that go to the Trainer as they are written."""

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
    "enable_autolog_hparams": (f"{OWN}: all settings stand in the HParams table", "nothing"),
    "inference_mode": (f"{OWN}: picture features that validation keeps are trained through", "nothing"),
    "logger": (f"{OWN}: each run has its TensorBoard folder", "runs_dir and name"),
    "callbacks": (OWN, "the section `callbacks`"),
    "default_root_dir": (OWN, "runs_dir and name"),
    "model_registry": ("results lie in the experiment's folder", "runs_dir and name"),
    "plugins": ("a plugin may change what is computed and how it is kept", "trainer.strategy or precision"),
    "barebones": ("a run without logger and callbacks leaves no result", "nothing"),
    "sync_batchnorm": ("no model here has batch normalisation", "nothing"),
}
"""Argument -> (why it is refused, what to write instead)."""

PRECISIONS = ("32-true", "32", 32, "bf16-mixed")
"""Precisions of the Trainer that keep adapters and optimiser in fp32, and need no scaling of the loss."""
HALVED = (
    "would round adapters and optimiser too",
    "precision=bf16 of the experiment, which keeps the frozen base weights in bf16 and adapters in fp32",
)
SCALED = (
    "scales the loss, which every stage would have to undo before it clips",
    "trainer.precision=bf16-mixed, or precision=bf16 of the experiment",
)


def check_trainer(given: Mapping[str, Any], report: Report, *, training: bool) -> dict[str, Any]:
    """Check the section `trainer` by the signature in Lightning's source and the tables above.

    Args:
        given: argument -> value.
        report: takes what is wrong.
        training: whether the experiment trains, and so needs `max_steps`.

    Returns:
        What is right in it.
    """
    known = signature(TRAINER) or {}
    good: dict[str, Any] = {}
    for name, value in given.items():
        key = f"trainer.{name}"
        if name in REFUSED:
            report(key, value, *refusal(*REFUSED[name]))
        elif name not in known:
            report(key, value, *unknown_key(name, [n for n in known if n not in REFUSED], "the section trainer"))
        elif name == "max_steps":
            if type(value) is not int or value < 1:
                report(key, value, f"expected {expected(int)} of at least 1, got {value!r}")
            good[name] = value
        elif name == "precision" and value not in PRECISIONS:
            report(key, value, *precision_refusal(value))
        else:
            good[name] = check(value, known[name], key, report)
    if training and "max_steps" not in given:
        report("trainer.max_steps", None, "missing; an experiment with a module needs its optimiser steps, at least 1")
    return good


def refusal(reason: str, instead: str) -> tuple[str, str]:
    """Message and suggestion for an argument that is refused."""
    return f"refused: {reason}", "leave it out" if instead == "nothing" else f"write instead: {instead}"


def precision_refusal(value: Any) -> tuple[str, str]:
    """Message and suggestion for a precision that is refused."""
    allowed = "; allowed are " + ", ".join(dict.fromkeys(str(choice) for choice in PRECISIONS))
    reason, instead = SCALED if str(value).startswith("16-mixed") else HALVED
    known = isinstance(value, str | int) and str(value).partition("-")[0] in ("16", "bf16", "64", "transformer")
    if not known:
        return f"expected a precision of Lightning's Trainer, got {value!r}{allowed}", ""
    message, suggestion = refusal(f"{value} {reason}", instead)
    return message + allowed, suggestion

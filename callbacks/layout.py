"""TensorBoard's custom scalars: charts that lay specialties, and experiments, side by side."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import lightning as L
from typing_extensions import override

from artifacts.folders import locked
from callbacks.board_files import board, board_stands
from callbacks.experiment_callback import ExperimentCallback

Layout = dict[str, dict[str, list]]
"""Category -> chart title -> ["Multiline", regular expressions over tags]."""

CHARTS: dict[str, dict[str, str]] = {
    "validation": {
        "right answers": "val/accuracy/*",
        "parsed": "val/parsed/*",
        "loss (nats per token)": "val/loss",
    },
    "rewards": {
        "total": "train/reward/total",
        "right answers": "train/reward/correct",
        "form": "train/reward/format",
        "adherence": "train/reward/adherence",
    },
    "policy": {
        "KL to the expert beneath (nats)": "train/kl/ref_nats",
        "entropy (nats)": "train/entropy_nats",
        "ratio clipped from below": "train/clip_fraction/low",
        "ratio clipped from above": "train/clip_fraction/high",
    },
    "groups without a signal": {
        "of total reward": "train/dead_groups/total",
        "of correctness": "train/dead_groups/correct",
        "of form": "train/dead_groups/format",
        "rows whose advantage is zero": "train/dead_rows",
    },
    "does the neutral prompt learn": {
        "accuracy: guided less neutral": "train/prompt_gap/correct",
        "pass@k, neutral": "train/prompt_gap/neutral_pass_at_k",
        "pass@k, guided": "train/prompt_gap/guided_pass_at_k",
    },
    "completions": {
        "length (tokens)": "train/completion/tokens",
        "truncated": "train/completion/truncated",
        "parsed": "train/completion/parsed",
        "gated": "train/completion/gated",
        "letters away from the right mix": "train/completion/letter_distance",
    },
    "steps": {
        "learning rate": "train/learning_rate",
        "gradient norm": "train/grad_norm",
        "steps skipped, not finite": "train/bad_steps",
    },
    "imitation": {"loss (nats per token)": "train/loss", "token probability": "train/token_probability"},
}
"""Category -> title -> tag. Every chart draws this tag of every run that is ticked: the specialties of an experiment,
and GBA beside its GRPO control, share one chart."""

GUIDELINE_QUANTITIES = {
    "reward": "reward",
    "advantage": "advantage",
    "correct": "right answers",
    "won": "most right",
}
"""Last part of `train/guideline/<name>/<quantity>` -> how its category is called."""


class ScalarLayout(ExperimentCallback):
    """Writes the layout once per experiment, into the run `<experiment>/layout`.

    TensorBoard joins the layouts of all runs under a logdir and drops repeated charts; all experiments of one code
    version therefore share one set of charts.
    """

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            chooses = getattr(getattr(pl_module, "config", None), "choice", None) is not None
            self.write(tuple(getattr(pl_module, "guidelines", ())), chooses)

    def write(self, guidelines: tuple[str, ...], chooses: bool) -> None:
        """Write the layout unless it is there whole.

        Args:
            guidelines: names that get charts of their own.
            chooses: as for `scalar_layout`.
        """
        folder = self.experiment.folder.path / "layout"
        with locked(folder, "the layout of TensorBoard's charts"):
            layout = scalar_layout(guidelines, chooses)
            made_from = hashlib.sha256(json.dumps(layout).encode()).hexdigest()
            if not board_stands(folder, made_from):
                with board(folder, made_from) as writer:
                    writer.add_custom_scalars(layout)


def scalar_layout(guidelines: tuple[str, ...], chooses: bool = False) -> Layout:
    """The charts, whole tags as anchored regular expressions.

    Args:
        guidelines: K names; each quantity of `GUIDELINE_QUANTITIES` gets one chart per guideline, and one with all.
        chooses: questions choose among them, and there are charts of that.
    """
    layout: Layout = {
        category: {title: ["Multiline", [anchored(tag)]] for title, tag in charts.items()}
        for category, charts in CHARTS.items()
    }
    for quantity, title in GUIDELINE_QUANTITIES.items() if guidelines else ():
        tags = {name: f"train/guideline/{name}/{quantity}" for name in guidelines}
        layout[f"guidelines: {title}"] = {
            "all guidelines": ["Multiline", [f"^train/guideline/[^/]+/{quantity}$"]],
            **{name: ["Multiline", [anchored(tag)]] for name, tag in tags.items()},
        }
    if chooses:
        layout["guidelines: chosen"] = {
            "share of guided rollouts": ["Multiline", [anchored(f"train/choice/{name}") for name in guidelines]],
            "different ones of a question": ["Multiline", [anchored("train/choice/distinct")]],
        }
    return layout


def anchored(tag: str) -> str:
    """A regular expression that matches this tag and no longer one; `*` stands for any one part of a tag."""
    return f"^{re.escape(tag).replace(re.escape('*'), '[^/]+')}$"

"""What running an experiment would mean: its data, its parameters and its steps, without training anything."""

from __future__ import annotations

from collections.abc import Sequence

from callbacks.experiment_callback import ExperimentCallback
from configs.build import build
from datamodules.check import quick_check
from datamodules.prompts import NEUTRAL
from experiment.context import ExperimentContext
from lightning_modules.policy import Policy
from lightning_modules.stage import StageContext

BYTES_PER_TRAINED = 16
"""fp32 weight, gradient and AdamW's two moments."""


def dry_run_report(context: ExperimentContext) -> str:
    """Lines about the lineage: per experiment its data, steps and parameters; weights are drawn at random, not loaded.

    Raises:
        BadExampleError: the data cannot be used.
    """
    lines: list[str] = []
    for member in context.lineage:
        lines += experiment_lines(member)
    return "\n".join(lines)


def experiment_lines(context: ExperimentContext) -> list[str]:
    """One experiment's part of the report."""
    experiment = context.experiment
    wanted = list(experiment.only) or context.specialties
    training = context.provides != "nothing"
    if training:
        steps = max(1, round(experiment.trainer["max_steps"] * experiment.budget))
        lines = [f"{experiment.name}: {experiment.module.class_path}, {steps} steps each on {', '.join(wanted)}"]
    else:
        lines = [f"{experiment.name}: examines {', '.join(context.examined)} on {', '.join(wanted)}"]
    for specialty in wanted:
        state = "finished" if context.is_run_complete(specialty) else "to do"
        lines.append(f"  {specialty} ({state})" if training else f"  {specialty}")
        for name, report in quick_check(context.data(specialty), training=training).items():
            letters = " ".join(f"{letter} {share:.0%}" for letter, share in report["letters"].items())
            lines.append(
                f"    {name:5} {report['examples']:6} questions of {report['patients']:5} patients, "
                f"{report['with_traces']} with traces; chance {report['random_guess']:.1%}; letters {letters}"
            )
    plans = [c.plan() for c in context.callbacks() if isinstance(c, ExperimentCallback)]
    lines += [f"  {plan}" for plan in plans if plan]
    if not training:
        return lines
    if context.base_folder is None or context.base_folder.exists():
        lines += parameter_lines(context, wanted)
    else:
        lines.append("  parameters: counted once the base exists")
    return lines


def parameter_lines(context: ExperimentContext, wanted: Sequence[str]) -> list[str]:
    """Counts of parameters, bytes, and tokens of one batch's prompts."""
    family = build(context.experiment.model, weights=context.base_folder)
    policy = Policy(family)
    frozen = sum(p.numel() for p in family.parameters())
    build(context.experiment.module, context=StageContext(policy, (), wanted[0], context.experiment.seed))
    trained = sum(p.numel() for p in family.parameters() if p.requires_grad)
    data = context.data(wanted[0])
    prompts = [policy.prompt(example, "") for example in data.splits["train"][:64]]
    lengths = sorted(len(prompt.ids) for prompt in prompts)
    mib = (4 * frozen + BYTES_PER_TRAINED * trained) / 2**20
    return [
        f"  parameters: {frozen / 1e6:.2f} M in the base, {trained / 1e6:.3f} M trained; about {mib:.0f} MiB for "
        f"weights, gradients and AdamW (4 bytes x base + {BYTES_PER_TRAINED} x trained; activations come on top)",
        f"  prompts ({NEUTRAL}): median {lengths[len(lengths) // 2]} tokens, longest of 64: {lengths[-1]}",
    ]

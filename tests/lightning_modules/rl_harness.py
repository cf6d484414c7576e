"""Shared by the tests of reinforcement learning: real fits of the real module on made completions.

Everything goes through `Trainer.fit` and `training_step`. What the model writes is replaced, by an engine that a
configuration names like any other, because a random model earns nothing; log-probabilities are the policy's own.
"""

from dataclasses import dataclass, field, replace

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from datamodules.batch import Batch
from lightning_modules.adapters import LoRASettings
from lightning_modules.engines.engine import Engine
from lightning_modules.rl_gba import GBA
from lightning_modules.rollout import Completion
from lightning_modules.stage import StageContext
from tests.conftest import randomise_adapter

EXCLUDES = (
    "<think>heart 62 of 110. narrow is unlikely because 62 of 110 is above half. wide fits. so the answer is wide."
    "</think><answer>B</answer>"
)
PLAIN = "<think>heart 62 of 110, so the answer is wide.</think><answer>B</answer>"
PRIOR = (
    "<think>heart 62 of 110. prior of wide 30 %, likelihood ratio 6, posterior 72 %, up. so the answer is wide."
    "</think><answer>B</answer>"
)
WRONG = "<think>heart 62 of 110, so the answer is narrow.</think><answer>A</answer>"
WRONG_TOO = "<think>heart 62 of 110 is large, so the answer is both.</think><answer>C</answer>"
UNPARSED = "<think>heart 62 of 110."
TEXTS = (EXCLUDES, WRONG, PLAIN, WRONG_TOO, PRIOR, WRONG, UNPARSED)
PART = "lightning_modules."


class MadeEngine(Engine):
    """Writes texts of a list, chosen by each row's stream alone."""

    @dataclass(frozen=True)
    class Config:
        """What is written."""

        texts: tuple[str, ...] = TEXTS
        drift: float = 0.0
        """Nats by which the recorded log-probabilities of every other row are below the policy's."""
        limit_at: int = 0
        """Texts with this index are cut: they have no end token; -1 cuts none."""

    def generate(self, policy, prompts, copies, seeds, *, max_new_tokens, temperature, version):
        rows = [prompt for prompt, count in zip(prompts, copies, strict=True) for _ in range(count)]
        texts = [seed % len(self.config.texts) for seed in seeds]
        ids = [policy.completion_ids(self.config.texts[text]) for text in texts]
        cut = [text == self.config.limit_at - 1 for text in texts]
        ids = [tokens[:-1] if short else tokens for tokens, short in zip(ids, cut, strict=True)]
        with torch.no_grad():
            logps = policy.score(rows, ids, temperature).logps
        return [
            Completion(
                tuple(tokens),
                tuple((row_logps[: len(tokens)] - self.config.drift * (number % 2)).tolist()),
                self.config.texts[text],
                short,
            )
            for number, (tokens, row_logps, text, short) in enumerate(zip(ids, logps, texts, cut, strict=True))
        ]


def made(**init_args) -> dict:
    """The slot's entry for the made engine."""
    return {"class_path": f"{__name__}.MadeEngine", "init_args": init_args}


def a_part(name: str, **init_args) -> dict:
    """A slot's entry: `advantages.grpo.GRPO`, say."""
    return {"class_path": PART + name, "init_args": init_args}


GRPO = a_part("advantages.grpo.GRPO")
GUIDED = {"guidelines": ("differential", "bayesian"), "rollouts_per_guideline": 3, "neutral_share": 0.25}


class Metrics(Logger):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.rows: list[dict] = []

    name = property(lambda self: "metrics")
    version = property(lambda self: 0)

    def log_metrics(self, metrics, step=None):
        self.rows.append(dict(metrics))

    def log_hyperparams(self, *_):
        pass


class Watch(L.Callback):
    """Keeps the gradient and the weights of every optimiser step, as the optimiser finds them."""

    def __init__(self):
        self.gradients, self.weights, self.rates, self.rollouts = [], [], [], []

    def on_before_optimizer_step(self, trainer, stage, optimizer):
        trained = [p for p in stage.parameters() if p.requires_grad]
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in trained]))
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in trained]))
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, stage, *_):
        self.rollouts.append(getattr(stage, "rollouts", None))


@dataclass
class Fit:
    """What a fit left."""

    stage: GBA
    gradients: list
    weights: list
    rates: list
    rollouts: list
    metrics: list[dict] = field(default_factory=list)


def context_of(policy, seed=0) -> StageContext:
    """A policy with an expert's adapter that acts, as reinforcement learning finds it."""
    policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(policy, "dsa")
    return StageContext(policy, ("dsa",), "heart", seed)


TRAINER = ("accelerator", "devices", "precision", "strategy")


def fit(
    policy, examples, *, steps=1, module=GBA, acting=True, batches=None, data=None, seed=0, finish=None, **settings
) -> Fit:
    """Train the real module with the real Trainer.

    Args:
        policy: a fresh one.
        examples: of every step.
        steps: of the Trainer.
        module: class of the stage.
        acting: the second adapter is not zero at the start, so that ratios and KL are not trivial.
        batches: instead of `examples` in every step.
        data: a DataModule instead of either.
        seed: of the run.
        finish: as of `run`.
        settings: of the Config, the engine is made unless it is named; and of the Trainer, those in `TRAINER`.
    """
    trainer = {name: settings.pop(name) for name in TRAINER if name in settings}
    plain = {"questions_per_step": len(examples), "max_new_tokens": 60, "lora_rank": 4, "engine": made()}
    config = replace(module.Config(), **({"max_grad_norm": float("inf"), "warmup": 0} | plain | settings))
    stage = module(config, context=context_of(policy, seed))
    if acting:
        randomise_adapter(policy, stage.adapter, seed=5)
    source = data or loader(batches or [Batch(tuple(examples))] * (2 * steps))
    return run(stage, steps, source, finish=finish, **trainer)


def loader(batches) -> DataLoader:
    """Batches as the Trainer takes them."""
    return DataLoader(batches, batch_size=None)


def run(stage, steps, source, folder=None, finish=None, **more) -> Fit:
    """Train a stage with the real Trainer.

    Args:
        stage: of any kind.
        steps: of the optimiser.
        source: a DataModule or a loader.
        folder: takes what the run leaves.
        finish: (what was found, rank), called on every device at the end.
        more: arguments of the Trainer.
    """
    watch, metrics = Watch(), Metrics()

    def found() -> Fit:
        rows = [row for row in metrics.rows if "train/grad_norm" in row]
        return Fit(stage, watch.gradients, watch.weights, watch.rates, watch.rollouts, rows)

    if finish is not None:
        watch.on_train_end = lambda trainer, stage: finish(found(), trainer.global_rank)
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=1,
        logger=metrics,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        limit_val_batches=0,
        default_root_dir=folder,
        **({"accelerator": "cpu", "devices": 1} | more),
    )
    trainer.fit(stage, source)
    return found()

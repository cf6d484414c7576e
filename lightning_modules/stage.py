"""What all kinds of training have in common: a policy, one way to take a step, validation, small checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from artifacts import step_records
from datamodules.batch import SPECIALTY, Batch, Example
from datamodules.loading import Demand, Feed
from guards.ranges import Ranged, above, at_least, between
from lightning_modules.bad_steps import FILE, BadSteps
from lightning_modules.functional.accumulation import summed_in_pieces
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.random_state import random_state, set_random_state
from lightning_modules.rewards.guidelines import Guideline, load_guidelines
from lightning_modules.schedule import Optimizer, adamw, scheduled, set_rates
from lightning_modules.sharding import ShardedBase
from lightning_modules.validation import Ask, Validation


@dataclass(frozen=True)
class StageContext:
    """What a stage is given besides its own configuration.

    Attributes:
        policy: the base, with the adapters of `start` loaded.
        start: adapters that act, frozen, beneath the one that is trained.
        specialty: name of the specialty.
        seed: of rollouts.
        ask: puts validation questions to the policy; None asks nothing.
        teachers: where one run is over several specialties, each one's expert: the adapters that are it together,
            loaded.
        mixed: where one run is over several specialties, their names.
        turns: how many of them come one after the other, each with a schedule of its own; 1 where they are mixed.
    """

    policy: Policy
    start: tuple[str, ...] = ()
    specialty: str = ""
    seed: int = 0
    ask: Ask | None = None
    teachers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mixed: tuple[str, ...] = ()
    turns: int = 1

    @staticmethod
    def guidelines_named(names: Sequence[str]) -> dict[str, Guideline]:
        """Guidelines by name, in this order.

        Raises:
            ValueError: a name has no file in configs/guidelines and is no path of one.
        """
        return load_guidelines(names)


class Stage(L.LightningModule):
    """A LightningModule around a policy, whose checkpoints hold the trainable parameters only.

    Choice: every stage optimises by itself (Lightning's manual optimisation), so that a step that is not finite can be
        skipped before it touches anything, and a batch may be differentiated in pieces, or used for several steps.

    Attributes:
        provides: what a finished run leaves for the experiments that require it: base weights, an adapter of one
            specialty, or one agent for all specialties, for which there is one run.
        adapter: name of the adapter that is trained, empty for base training.
        kind: what the adapter's manifest calls it.
        shards: whether it can run with the base in parts on several devices, see `lightning_modules.sharding`; where it
            writes answers to learn from, only `while_learning`, and with the base whole while anything is written.
        replays: whether rows of another set may be mixed into its steps, see `datamodules.replay`.
        questions: ids of the training questions to take, in order; None takes all. Stages that take rows ignore it.
        last_validation: `step` and metrics of the newest validation; empty before the first.
    """

    provides: ClassVar[Literal["base", "expert", "agent"]] = "expert"
    adapter: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    shards: ClassVar[Literal["never", "while_learning", "always"]] = "never"
    replays: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config(Ranged):
        """How steps are taken, in every stage."""

        learning_rate: Annotated[float, above(0)] = 1e-3
        """Peak of the schedule; above 0."""
        weight_decay: Annotated[float, at_least(0)] = 0.0
        """Decoupled weight decay per unit of learning rate; at least 0."""
        optimizer: Optimizer = "adamw"
        """`adamw8bit` holds the two moments of matrices from 4,096 numbers on in 8 bits; `paged_adamw8bit` also moves
        them out of a full card's memory."""
        betas: Annotated[tuple[float, float], between(0, 1, open_high=True)] = (0.9, 0.99)
        """Decay of AdamW's two moments, each in [0, 1)."""
        schedule: Literal["cosine", "linear", "constant"] = "cosine"
        """How the learning rate falls after its rise."""
        floor: Annotated[float, between(0, 1)] = 0.1
        """Factor on the learning rate at the end, in [0, 1]; a constant schedule has none."""
        warmup: Annotated[float, at_least(0)] = 0.05
        """Linear rise: below 1 a share of all steps, so that `budget` scales it; from 1 on a number of steps."""
        max_grad_norm: Annotated[float, above(0, finite=False)] = 1.0
        """Gradients are scaled down to this norm; above 0, `.inf` leaves them."""
        max_bad_steps: Annotated[int, at_least(1)] = 3
        """Steps in a row that are not finite, and skipped, before training stops; at least 1."""
        micro_batch_tokens: Annotated[int, at_least(1)] = 16384
        """Bound on tokens per forward pass, shared prefixes counted once; the gradient does not depend on it."""
        checkpoint_layers: bool = False
        """Compute activations again in the backward pass: less memory, about a third slower."""

    config: Config

    def __init__(self, context: StageContext, config: Config) -> None:
        """Keep both.

        Args:
            context: policy, specialty, seed.
            config: of the concrete stage.
        """
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold only what is trained
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a device may have no validation question
        self.context, self.config = context, config
        self.policy = context.policy
        self.questions: tuple[str, ...] | None = None
        self.clock = PhaseClock()
        self.bad_steps = BadSteps(config.max_bad_steps)
        names = (context.specialty, *context.mixed)
        self.validation = Validation(names, lambda: self.trainer.world_size > 1)
        self.last_validation: dict[str, Any] = {}
        self._random_states: list[dict[str, Any]] = []
        self._answering = ExitStack()  # entered while validation questions are asked
        if config.checkpoint_layers:
            self.policy.checkpoint_layers()

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuse settings that do not go together, before anything is loaded or trained.

        Raises:
            ValueError: says which.
        """

    @classmethod
    def check_questions(cls, config: Config, questions: Iterable[Example]) -> None:
        """Refuse training questions that cannot be used under these settings, before anything is trained.

        Raises:
            BadExampleError: names the first one.
        """

    @classmethod
    def demand(cls, config: Config) -> Demand:
        """How a training question of these settings is put to the model, known before there is one."""
        return Demand(traces=None)

    def feed(self) -> Feed:
        """What training takes from a data set."""
        raise NotImplementedError

    def rehearse(self) -> None:
        """From now on ask nobody outside of this process: the steps to come are a dry run's."""

    def beside_adapter(self, validation: Mapping[str, float]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(weights, meaning as JSON) of what is learnt besides the adapter, such as a head; None where nothing is.

        Args:
            validation: metrics of the weights that are kept.
        """
        return None

    def metrics_at_start(self) -> dict[str, float]:
        """Metrics that progress shows."""
        return {}

    # -- steps ---------------------------------------------------------------------------------------------------

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of what is trainable."""
        c = self.config
        return adamw(self.parameters(), c.learning_rate, betas=c.betas, weight_decay=c.weight_decay, kind=c.optimizer)

    @override
    def configure_optimizers(self) -> dict:
        if self.trainer.precision == "16-mixed":
            raise ValueError("trainer.precision=16-mixed scales losses, which no stage here undoes; use bf16-mixed")
        c, turns = self.config, self.context.turns
        steps = self.trainer.max_steps
        return scheduled(
            self.optimizer(), shape=c.schedule, warmup=c.warmup, max_steps=steps, floor=c.floor, turns=turns
        )

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What is trainable, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def optimise(self, pieces: Iterable[Tensor], rows: Sequence[str]) -> dict[str, float]:
        """One optimiser step on a sum of losses, or none where a number in it is not finite.

        Args:
            pieces: () losses that add up, over all devices, to the step's loss; each is differentiated before the next
                is asked for. A device may have none.
            rows: ids of this device's questions, to name when the step is skipped.

        Returns:
            `train/learning_rate`, and `train/grad_norm` before clipping where it is finite.

        Raises:
            RuntimeError: `max_bad_steps` in a row were skipped.
        """
        parameters, optimizer = list(self.trained.values()), self.optimizers()
        with self.clock.phase("backward"):
            loss = summed_in_pieces(pieces, parameters)
            self.manual_backward(loss * self.trainer.world_size)  # strategies average gradients over devices
            loss = loss.detach()
        with self.clock.phase("optimizer"):
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
            metrics = {"train/learning_rate": float(optimizer.param_groups[-1]["lr"])}
            if self.agreed(bool(loss.isfinite()) and bool(norm.isfinite())):
                optimizer.step()
                self.lr_schedulers().step()
                self.bad_steps.good()
                metrics["train/grad_norm"] = float(norm)
            optimizer.zero_grad()
        if "train/grad_norm" not in metrics:
            self.skip(rows, float(loss), float(norm))
        return metrics

    def skip(self, rows: Sequence[str], loss: float, norm: float) -> None:
        """Name and count a step that was not taken; arguments as of `BadSteps.skipped`, on this device."""
        everywhere = [row for part in self.from_all(list(rows)) for row in part]
        (total,) = self.over_devices(loss)
        file = self.bad_steps_file if self.trainer.is_global_zero else None
        self.bad_steps.skipped(file, self.batches_done, everywhere, loss=total, grad_norm=norm)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        folder = self.logger.log_dir if self.logger is not None else None
        return Path(folder or self.trainer.default_root_dir)

    @property
    def bad_steps_file(self) -> Path:
        """Keeps the rows of skipped steps."""
        return self.folder / FILE

    # -- several devices -----------------------------------------------------------------------------------------

    def over_devices(self, *numbers: float) -> list[float]:
        """Each number's sum over all devices, in double precision."""
        if self.trainer.world_size == 1:
            return [float(number) for number in numbers]
        own = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        return self.trainer.strategy.reduce(own, reduce_op="sum").tolist()

    def agreed(self, holds: bool) -> bool:
        """Whether something holds on every device."""
        return self.over_devices(float(not holds)) == [0.0]

    def from_all(self, item: Any) -> list[Any]:
        """What each device holds, in the order of their ranks."""
        ranks = range(self.trainer.world_size)
        return [item] if len(ranks) == 1 else [self.trainer.strategy.broadcast(item, src=rank) for rank in ranks]

    def whole_base(self) -> AbstractContextManager[None]:
        """Within it every device has the base whole, for passes that no other device takes part in."""
        strategy = self.trainer.strategy
        return strategy.whole_base() if isinstance(strategy, ShardedBase) else nullcontext()

    # -- what is reported ----------------------------------------------------------------------------------------

    @property
    def batches_done(self) -> int:
        """TensorBoard's step: batches that were trained on. While one is in work it does not count.

        It differs from `global_step`, the steps of the optimiser, where a batch serves several or where one is skipped.
        """
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed

    def report(self, metrics: Mapping[str, float], shown: Sequence[str] = ()) -> None:
        """Write a batch's metrics as curves, every `log_every_n_steps` batches.

        `self.log` would repeat an earlier value of what is undefined this time; here it is left out.

        Args:
            metrics: by tag, the same on every device.
            shown: tags that the progress line and the result's manifest show.
        """
        if self.loggers and (self.batches_done + 1) % self.trainer.log_every_n_steps == 0:
            drawn = {**metrics, "train/bad_steps": float(self.bad_steps.total)}
            for logger in self.loggers:
                logger.log_metrics(drawn, step=self.batches_done)
        self.log_dict({tag: metrics[tag] for tag in shown if tag in metrics}, prog_bar=True, logger=False)

    # -- validation ----------------------------------------------------------------------------------------------

    @override
    def on_validation_epoch_start(self) -> None:
        if self.shards == "while_learning":
            self._answering.enter_context(self.whole_base())

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not batch.examples:
            return  # other devices have one more
        if self.context.ask is not None:
            mixed = [example.tags[SPECIALTY] for example in batch.examples] if self.context.mixed else ()
            self.validation.add_answers(self.context.ask(self.policy, batch), mixed)
        loss, tokens = self.validation_loss(batch)
        if tokens:
            self.validation.add_loss(loss, tokens)

    def validation_loss(self, batch: Batch) -> tuple[float, int]:
        """Mean loss of validation questions in nats per token, and its tokens; none unless a stage has one."""
        return 0.0, 0

    @override
    def on_validation_epoch_end(self) -> None:
        self._answering.close()
        if self.trainer.world_size > 1:
            self.trainer.strategy.barrier("all have answered")  # the metrics' own sums know nothing of the strategy
        found = self.validation.results()
        self.last_validation = {"step": self.batches_done, "metrics": found}
        self.log_dict(found, logger=False, sync_dist=True)
        self.log_validation()

    def log_validation(self) -> None:
        """Write the newest validation's point of each curve."""
        if self.last_validation:
            for logger in self.loggers:
                logger.log_metrics(self.last_validation["metrics"], step=self.last_validation["step"])

    # -- checkpoints ---------------------------------------------------------------------------------------------

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = self.trained
        spoilt = [name for name, parameter in trained.items() if not bool(parameter.isfinite().all())]
        if spoilt:
            raise RuntimeError(
                f"step {self.batches_done}: {len(spoilt)} of {len(trained)} trained weights are not finite, "
                f"{spoilt[0]} the first; no checkpoint is written, the last one stands. Is learning_rate too high?"
            )
        checkpoint["state_dict"] = {name: v for name, v in checkpoint["state_dict"].items() if name in trained}
        checkpoint["batches_done"] = self.batches_done
        checkpoint["bad_steps"] = {"in_a_row": self.bad_steps.in_a_row, "total": self.bad_steps.total}
        checkpoint["validation"] = self.last_validation
        checkpoint["random_states"] = self.from_all(random_state())

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bad_steps.in_a_row = checkpoint["bad_steps"]["in_a_row"]
        self.bad_steps.total = checkpoint["bad_steps"]["total"]
        self.last_validation = checkpoint["validation"]
        self._random_states = checkpoint["random_states"]

    @override
    def on_train_start(self) -> None:
        if self.trainer.is_global_zero:
            step_records.forget(self.bad_steps_file, self.batches_done)
        set_rates(self.lr_schedulers())
        if not self._random_states:
            return
        # After everything that may have drawn a number while the run was set up again.
        set_random_state(self._random_states[self.trainer.global_rank % len(self._random_states)])
        self._random_states = []
        if self.last_validation.get("step") == self.batches_done:
            self.log_validation()  # withdrawn with all that stands at this step, of which a killed run may have more

    @override
    def transfer_batch_to_device(self, batch, device, dataloader_idx: int):
        return batch  # examples and texts; the policy moves what it makes of them

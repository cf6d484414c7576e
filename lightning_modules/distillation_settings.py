"""The settings of integration: where the student starts, what it is asked, and how much each specialty counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from configs.schema import Slot
from guards.ranges import above, at_least, between
from lightning_modules.engines.engine import Engine
from lightning_modules.stage import Stage


@dataclass(frozen=True)
class IntegrationSettings(Stage.Config):
    """Where the student starts, what it is asked, and how much each specialty counts."""

    learning_rate: float = 1e-3
    """Peak of the schedule; above 0."""
    start: str = ""
    """Where the student starts: the name of a merge that a required experiment made (one that the gates rejected
    too), or the path, with a separator, of any adapter that stands on the bare base. Empty starts from zero."""
    written_by: Literal["student", "teacher"] = "student"
    """Whose answers both are compared on: the student's own, which is on-policy, or those of each specialty's expert,
    which is off-policy distillation, the control for it."""
    form: Literal["full", "forward", "policy_gradient"] = "full"
    """Reverse KL over the whole vocabulary; forward KL, whose mean gradient on the expert's answers is that of
    imitating them; or REINFORCE on the log-ratio of the tokens that were sampled."""
    log_ratio_clip: Annotated[float, above(0, finite=False)] = 5.0
    """C: bound on a token's log-ratio in nats, for `policy_gradient`; above 0, `.inf` leaves it."""
    questions_per_specialty: Annotated[int, at_least(1)] = 4
    """Questions of every specialty per step, over all devices; at least 1."""
    rollouts_per_question: Annotated[int, at_least(1)] = 1
    """Answers to each of them; at least 1."""
    temperature: Annotated[float, above(0)] = 1.0
    """The temperature of these answers, and of both distributions that are compared; above 0."""
    max_new_tokens: Annotated[int, at_least(1)] = 96
    """T_max of an answer in tokens, at least 1."""
    token_shares: Literal["balanced", "as_written"] = "balanced"
    """`balanced`: specialties count alike, whatever they write. `as_written`: every token counts alike."""
    gap_exponent: Annotated[float, at_least(0)] = 1.0
    """γ: a specialty counts by its distance to its teacher to this power; 0 leaves the distance out."""
    gap_memory: Annotated[float, between(0, 1, open_high=True)] = 0.9
    """Weight of the former steps in that distance, a moving mean, in [0, 1)."""
    gate: Literal["none", "right", "better"] = "right"
    """Where a teacher teaches: everywhere; where its own answer is right; where it is right more often than the
    student is at this step."""
    gate_samples: Annotated[int, at_least(1)] = 1
    """Answers of a teacher to a question for the gate, once in a run; at least 1, above 1 with a temperature."""
    gate_temperature: Annotated[float, at_least(0)] = 0.0
    """The temperature of these answers; 0 takes the most likely tokens."""
    lora_rank: Annotated[int, at_least(1)] = 64
    """r of a student that starts from zero, at least 1; one that starts from an adapter has its rank."""
    lora_alpha: Annotated[float, above(0)] = 128.0
    """Scale numerator of a student that starts from zero, above 0."""
    lora_seed: int = 0
    """Seed of the A of a student that starts from zero."""
    engine: Annotated[dict[str, Any], Slot(Engine)] = field(
        default_factory=lambda: {"class_path": "lightning_modules.engines.packed.Packed"}
    )
    """What writes the answers: a class of `lightning_modules.engines`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate_samples > 1 and self.gate_temperature == 0:
            raise ValueError(
                f"gate_samples must be 1 at gate_temperature 0, where all are the same; got {self.gate_samples}"
            )

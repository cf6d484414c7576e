"""Where a teacher is worth listening to, from how often it and the student are right."""

from __future__ import annotations

import torch
from torch import Tensor


def taught(gate: str, teacher_rates: Tensor, student_rates: Tensor) -> Tensor:
    """Which prompts a teacher teaches.

    Args:
        gate: `none` teaches all; `right` where the teacher's answer is right, at least half of the time if it gave
            several; `better` where it is right more often than the student's rollouts of this step.
        teacher_rates: (P,) share of the teacher's answers that are right; not looked at for `none`.
        student_rates: (P,) share of the student's rollouts that are right.

    Returns:
        (P,) bool.

    Source: verify the teacher on the prompt: TGOPD, arXiv:2609.02998.
    Choice: a prompt that is not taught is left out. There it falls back to reinforcement learning.
    """
    if gate == "none":
        return torch.ones(len(student_rates), dtype=torch.bool)
    return teacher_rates >= 0.5 if gate == "right" else teacher_rates > student_rates

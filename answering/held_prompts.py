"""First prompts that were written once: many models are asked the same questions."""

from __future__ import annotations

from answering.decoding import ProtocolName
from answering.protocols import first_prompt
from datamodules.batch import Example
from lightning_modules.feature_cache import Recent
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt

HELD_BYTES = 2**28
"""Bytes of prompts, pictures included, that are kept for the next model."""


class HeldPrompts:
    """First prompts of one base by whose questions they are; the least recently used leave first."""

    def __init__(self, protocol: ProtocolName = "single", max_bytes: int = HELD_BYTES) -> None:
        """Start empty.

        Args:
            protocol: how all questions are asked.
            max_bytes: bound of what is kept.
        """
        self.protocol = protocol
        self._held: Recent[Prompt] = Recent(max_bytes)

    def of(self, policy: Policy, example: Example, instruction: str, *group: object) -> Prompt:
        """A question's first prompt, see `first_prompt`.

        Args:
            policy: whose family writes it; every policy that is handed in is of the same family and settings.
            example: the question.
            instruction: of a guideline.
            group: what tells questions of one id apart: the specialty, and how they are put.
        """
        key = repr((group, instruction, example.question_id))
        found = self._held.get(key)
        if found is None:
            found = first_prompt(policy, example, instruction, self.protocol)
            self._held.put(key, found, 8 * len(found.ids) + sum(item.pixels.nbytes for _, item in found.images))
        return found

"""The one base that a process holds in memory: training, gates, matrix and questions to a model take turns on it."""

from __future__ import annotations

import gc
from collections.abc import Callable

from lightning_modules.policy import Policy


class LiveBase:
    """A base by its key; asking for another one lets go of the one before, so that two are never alive."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._key = ""
        self._held: tuple[Policy, str] | None = None

    def of(self, key: str, load: Callable[[], tuple[Policy, str]]) -> tuple[Policy, str]:
        """The policy on a base, and the base's fingerprint; loaded where another one, or none, is held.

        Adapters may be attached to it still: whoever takes the policy begins with `Policy.bare`.

        Args:
            key: identifies the base's weights and precision.
            load: reads it.
        """
        if self._held is None or self._key != key:
            self.clear()
            self._key, self._held = key, load()
        return self._held

    def clear(self) -> None:
        """Let go of what is held: its weights were changed, or its memory is needed."""
        if self._held is not None:
            self._key, self._held = "", None
            gc.collect()  # a Trainer, its module and its callbacks hold each other, and the policy with them

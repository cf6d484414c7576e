"""What one invocation may spend on a teacher."""

from __future__ import annotations

import threading


class Budget:
    """Attempts and tokens that may still be spent; asked by several threads."""

    def __init__(self, requests: int, tokens: int) -> None:
        self.requests, self.tokens, self.lock = requests, tokens, threading.Lock()

    def keep_to(self, index: int, count: int) -> None:
        """Leave one of several shares of it, which together are the whole.

        Args:
            index: of the share, from 0.
            count: of shares.
        """
        self.requests, self.tokens = (left // count + (index < left % count) for left in (self.requests, self.tokens))

    def take(self, tokens: int) -> bool:
        """Set one attempt of at most so many tokens aside; False where they are not left."""
        with self.lock:
            if self.requests < 1 or self.tokens < tokens:
                return False
            self.requests, self.tokens = self.requests - 1, self.tokens - tokens
            return True

    def settle(self, taken: int, spent: int) -> None:
        """Give back what was set aside and not spent."""
        with self.lock:
            self.tokens += taken - spent

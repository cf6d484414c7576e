"""What may still be spent at an endpoint, and when it may be asked again; shared by the threads that ask."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """What tokens cost, in whatever currency: money per million of a prompt and of an answer."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost.

        Examples:
            >>> Price(2.0, 8.0).of(500_000, 250_000)
            3.0
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION

    def told(self, prompt_tokens: int, completion_tokens: int) -> str:
        """What so many tokens cost, to stand behind them in a sentence; empty where no price is known.

        Examples:
            >>> Price(2.0, 8.0).told(500_000, 250_000), Price().told(1, 1)
            (', 3.00 in money', '')
        """
        known = self.prompt or self.completion
        return f", {self.of(prompt_tokens, completion_tokens):.2f} in money" if known else ""


@dataclass
class Budget:
    """Attempts, tokens and money that are left; what an attempt may cost at most is set aside before it begins."""

    requests: int
    tokens: int
    money: float = math.inf
    """Infinite where no bound is set."""
    price: Price = Price()
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def keep_to(self, index: int, count: int) -> None:
        """Leave one of several shares of it, which together are the whole.

        Args:
            index: of the share, from 0.
            count: of shares.
        """
        self.requests, self.tokens = (left // count + (index < left % count) for left in (self.requests, self.tokens))
        self.money /= count

    def close(self) -> None:
        """Leave nothing of it."""
        self.requests = 0

    def take(self, prompt: int, completion: int) -> bool:
        """Set one attempt of at most so many tokens aside; False where they are not left."""
        with self.lock:
            cost = self.price.of(prompt, completion)
            if self.requests < 1 or self.tokens < prompt + completion or self.money < cost:
                return False
            self.requests -= 1
            self.tokens -= prompt + completion
            self.money -= cost
            return True

    def settle(self, taken: tuple[int, int], spent: tuple[int, int]) -> None:
        """Give back what was set aside and not spent: tokens of prompt and answer."""
        with self.lock:
            self.tokens += sum(taken) - sum(spent)
            self.money += self.price.of(*taken) - self.price.of(*spent)


class Pause:
    """When an endpoint that asked for patience (Retry-After) may be asked again, by whichever thread."""

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self.until = 0.0

    def ask(self, seconds: float) -> None:
        """Note that nobody is to ask for so long; a shorter wish does not shorten a longer one."""
        self.until = max(self.until, time.monotonic() + seconds)

    def over(self, halt: threading.Event) -> bool:
        """Wait for the end of the pause, and for that of a pause that began meanwhile; False where `halt` came."""
        while (left := self.until - time.monotonic()) > 0:
            if halt.wait(left):
                return False
        return True

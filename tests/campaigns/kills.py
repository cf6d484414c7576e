"""Kill commands at seeded moments, repeat them until they are done, and compare with a run that nobody disturbed.

    python -m tests.campaigns.kills --count 200 [--minutes 30] [--seed 0] [--scene RL] [--write docs/reliability.md]

A case plays one scene (`scenes.py`), is struck up to three times, by SIGKILL or by a signal that asks to stop, at a
random time or at the n-th touch of a file (`strikes.py`), and is then left to end. Everything below runs/ must then be
as after an undisturbed run, byte for byte; what may differ stands in `leavings.py`. Every strike counts as one kill.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.campaigns import forked
from tests.campaigns.leavings import differences, torn
from tests.campaigns.scenes import FOUNDATION, SCENES, Scenery
from tests.campaigns.strikes import Strike
from tests.campaigns.tally import Tally, arguments, last_line, numbered

SIGNALS = {signal.SIGKILL: 6, signal.SIGTERM: 2, signal.SIGINT: 2}
MOST_STRIKES = 3
TRACEBACK = "Traceback (most recent call last)"


class Case:
    """One scene with its strikes, all drawn from one seed."""

    def __init__(self, stage: Scenery, seed: int, scene: str = "") -> None:
        """Draw the scene, if none is given."""
        self.stage, self.seed, self.draw = stage, seed, random.Random(seed)
        drawn = self.draw.choices(list(SCENES), [one.weight for one in SCENES.values()])[0]
        self.name = scene or drawn
        self.scene = SCENES[self.name]
        self.strikes = 0
        self.told: list[str] = []

    def play(self) -> list[tuple[str, str]]:
        """Strike, repeat, compare.

        Returns:
            (column, what was seen) of everything that must not be.
        """
        self.stage.know(self.name)
        self.stage.reset(self.name)
        found = []
        for _ in range(self.draw.randint(1, MOST_STRIKES)):
            ended = self.struck()
            found += self.judged(ended)
            if ended.code == 0:
                break  # the moment lay behind its end
            self.strikes += 1
            found += torn(self.stage.runs)
        else:
            ended = forked.run(self.scene.words, self.stage.here, patience=self.patience)
            found += self.judged(ended)
            if ended.code != 0:
                found.append(("different", f"the same command ends with {ended.code}: {last_line(ended.output)}"))
        found += self.strays()
        if ended.code == 0:
            found += differences(self.stage.reference(self.name), self.stage.runs)
        return [(column, f"{text}; after {', '.join(self.told)}") for column, text in found]

    @property
    def patience(self) -> float:
        """Seconds after which a command counts as hung."""
        return 120 + 20 * self.stage.seconds[self.name]

    def struck(self) -> forked.Ended:
        """Run the command and strike it once."""
        number = self.draw.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        name = signal.Signals(number).name
        strike = Strike(self.draw.randint(1, self.stage.touches[self.name]), number, below=str(self.stage.runs))
        seconds = self.draw.uniform(0.05, 1.0) * self.stage.seconds[self.name]
        by_time, in_worker = self.draw.random() < 0.4, self.scene.workers and self.draw.random() < 0.6
        if in_worker:
            strike = Strike(self.draw.randint(1, 80), number, strike.below, only=self.scene.workers)
            self.told.append(f"{name} to a worker at its touch {strike.moment}")
            return self.run(strike.inherit)
        if by_time:
            self.told.append(f"{name} after {seconds:.2f} s")
            return self.run(lambda: None, at=seconds, number=number)
        self.told.append(f"{name} at touch {strike.moment}")
        return self.run(strike.arm)

    def run(self, prepare, **how) -> forked.Ended:
        """One command of this case."""
        started = forked.started(self.scene.words, self.stage.here, lambda: (self.mark(), prepare()))
        return forked.finished(*started, patience=self.patience, **how)

    def mark(self) -> None:
        """Let the processes that the command starts be known as this case's."""
        os.environ["CAMPAIGN_CASE"] = f"{self.stage.work}:{self.seed}"

    def judged(self, ended: forked.Ended) -> Iterator[tuple[str, str]]:
        """What is wrong with how a command ended, whatever it was told."""
        if ended.hung:
            yield "hangs", f"no end after {self.patience:.0f} s: {last_line(ended.output)}"
        if TRACEBACK in ended.output:
            place = ended.output.rpartition(TRACEBACK)[2]
            yield (
                "tracebacks",
                f"{last_line(place)} ({[line.strip() for line in place.splitlines() if 'File' in line][-1:]})",
            )
        expected = (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
        if not ended.hung and ended.code not in expected and not (self.scene.workers and ended.code == 1):
            yield "different", f"exit code {ended.code}: {last_line(ended.output)}"

    def strays(self) -> Iterator[tuple[str, str]]:
        """Processes of this case that outlive it; ended here."""
        mark = f"CAMPAIGN_CASE={self.stage.work}:{self.seed}".encode()
        end = time.monotonic() + 60
        while left := [pid for pid in processes() if mark in environment(pid)]:
            if time.monotonic() > end:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                yield "hangs", f"{len(left)} processes outlived the command by a minute"
                return
            time.sleep(0.2)


def processes() -> list[int]:
    """All process numbers but our own."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def environment(pid: int) -> bytes:
    """A process's first environment; empty if it is gone, or not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if anything was found that must not be."""
    options = arguments(__doc__, 200, words, scene="play this one only")
    os.environ["OMP_NUM_THREADS"] = "1"
    forked.preload()
    work = Path(tempfile.mkdtemp(prefix="kills-")).resolve()  # no TemporaryDirectory: forked children would clear it
    try:
        stage = Scenery(work)
        stage.found(*FOUNDATION)
        tally = Tally("kills", "kills", options)
        for seed in numbered(options, tally):
            case = Case(stage, seed, options.scene)
            found = case.play()
            tally.add(case.name, seed, found, cases=case.strikes)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tally.end(options.write)


if __name__ == "__main__":
    sys.exit(main())

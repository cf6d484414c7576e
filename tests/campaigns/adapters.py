"""Adapters that PEFT saved, and bits that flipped on a disk: taken in as they act, or refused by name.

    python -m tests.campaigns.adapters --count 600 [--minutes 30] [--seed 0] [--write docs/reliability.md]

Three of four cases let PEFT save an adapter and adopt it (`peft_configs.py`): the logits are PEFT's, or it is refused
for its reason. In the fourth a bit is flipped in a file that a run reads: base, tokenizer, adapter, checkpoint.
Either the command ends as if nothing had happened, in the same weights, or it fails and names the file.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.campaigns import forked
from tests.campaigns.leavings import files
from tests.campaigns.scenes import Scenery, trained
from tests.campaigns.tally import Tally, arguments, last_line, numbered

READERS = {
    "base": (trained("gba", "name=flipped", "only=[alpha]", "trainer.max_steps=1"), "base/mixed/base"),
    "adapter": (trained("gba", "name=flipped", "only=[alpha]", "trainer.max_steps=1"), "dsa/alpha/adapter"),
    "merged adapter": (("merge", "run", "--config", "merge.yaml"), "agent/beta/adapter"),
    "checkpoint": (trained("dsa", "trainer.max_steps=4", "only=[alpha]"), "dsa/alpha/checkpoints"),
}
"""What is damaged -> the command that reads it, and the folder below runs/ that it lies in."""


class Flips:
    """Flips a bit of one file, and sees what a command makes of it."""

    def __init__(self, work: Path) -> None:
        """Train what is to be damaged."""
        self.scenery = Scenery(work)
        self.scenery.found(trained("dsa"), trained("agent", "callbacks.merge=null", "callbacks.evaluate=null"))
        self.weights: dict[str, dict[str, bytes]] = {}

    def play(self, seed: int) -> tuple[str, list[tuple[str, str]]]:
        """One flipped bit.

        Returns:
            The kind of the case, and (column, what was seen) of everything that must not be.
        """
        draw = random.Random(seed)
        kind = draw.choice(list(READERS))
        words, folder = READERS[kind]
        if kind not in self.weights:
            self.reset()
            self.scenery.must(words)
            self.weights[kind] = self.written()
        self.reset()
        path = draw.choice(list(files(self.scenery.runs / folder).values()))
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        ended = forked.run(words, self.scenery.here, patience=120)
        return f"bit in {kind}", list(self.judged(ended, path, bytes(content), kind))

    def judged(self, ended: forked.Ended, path: Path, damaged: bytes, kind: str) -> Iterator[tuple[str, str]]:
        """What is wrong with how the command ended."""
        name = str(path.relative_to(self.scenery.runs))
        named = path.name in ended.output or str(path.parent) in ended.output
        if ended.hung:
            yield "hangs", f"{name}: no end"
        if "Traceback (most recent call last)" in ended.output:
            yield "tracebacks", f"{name}: {last_line(ended.output)}"
        if ended.code == 0:
            if self.written() != self.weights[kind]:
                yield "different", f"{name}: other weights, and exit code 0"
            elif not named and kind != "checkpoint" and path.exists() and path.read_bytes() != damaged:
                yield "silent losses", f"{name}: made anew without a word"
        elif not named:
            yield "different", f"{name}: not named: {last_line(ended.output)}"

    def written(self) -> dict[str, bytes]:
        """Every file of weights below runs/ that a command may have written."""
        found = files(self.scenery.runs).items()
        return {name: path.read_bytes() for name, path in found if name.endswith(".safetensors")}

    def reset(self) -> None:
        """Put back what was trained."""
        shutil.rmtree(self.scenery.runs)
        shutil.copytree(self.scenery.work / "foundation", self.scenery.runs)


def adopted(seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """One adapter of PEFT's, taken in or refused.

    Yields:
        (column, what was seen) of everything that must not be.
    """
    from tests.campaigns.peft_configs import outcome

    try:
        outcome(seed, folder)
    except AssertionError as error:
        yield "different", str(error).splitlines()[0][:400]
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield "tracebacks", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if anything was found that must not be."""
    options = arguments(__doc__, 600, words, only="`peft` or `bits`")
    forked.preload()
    work = Path(tempfile.mkdtemp(prefix="adapters-")).resolve()
    try:
        flips = Flips(work / "flips") if options.only != "peft" else None
        tally = Tally("adapters", "adapters", options)
        for seed in numbered(options, tally):
            if flips and (options.only == "bits" or seed % 4 == 3):
                kind, found = flips.play(seed)
                tally.add(kind, seed, found)
            else:
                folder = work / "peft"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                tally.add("adopted from PEFT", seed, adopted(seed, folder))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tally.end(options.write)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

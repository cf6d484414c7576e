"""Spoilt configurations: each ends in a clear message or works, in seconds, and starts nothing.

    python -m tests.campaigns.configs --count 2000 [--minutes 20] [--seed 0] [--write docs/reliability.md]

Every experiment, recipe, curation and command line of `mutate_configs.py`, and every fourth with a stranger's class in
a slot (`strangers.py`), goes through the program that reads it. It must end in 0 or 2, without a traceback, in at most
4 kB, with nothing that a terminal obeys, and no program may be started and no stranger's module imported.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.campaigns import forked
from tests.campaigns.mutate_configs import CANARY, Mutant, mutated
from tests.campaigns.strangers import STRANGERS, with_stranger
from tests.campaigns.tally import Tally, arguments, last_line, numbered
from tests.campaigns.watched import watch

PATIENCE = 20.0
"""Seconds after which a check counts as hung: ten times the longest of an honest one on a busy core."""
LONGEST = 4096
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")
"""What a terminal takes as a command."""
WORDS = {
    "experiment": ("train.py", "--print-config", "--config"),
    "recipe": ("merge", "run", "--dry-run", "--config"),
    "curation": ("settings",),
}
"""How each kind is read by the program that it is for, as far as it reads and checks."""
TOLD = {name.partition(".")[0] for name in STRANGERS} - {"os", "subprocess"}
"""Modules whose import is a finding; the others' functions are."""
TRAP = "open({told!r}, 'a').write('imported campaign_trap\\n')\nclass Trap:\n    pass\n"


def play(case: Mutant, hostile: bool, folder: Path) -> Iterator[tuple[str, str]]:
    """Let a program read one case.

    Yields:
        (column, what was seen) of everything that must not be.
    """
    log = folder / "started"
    log.unlink(missing_ok=True)
    (folder / "spoilt.yaml").write_bytes(case.text)
    (folder / "campaign_trap.py").write_text(TRAP.format(told=str(log)))

    def prepare() -> None:
        sys.path.insert(0, str(folder))
        watch(log, TOLD)

    words = (*WORDS[case.kind], "spoilt.yaml", *case.overrides)
    ended = forked.finished(*forked.started(words, folder, prepare), patience=PATIENCE)
    yield from judged(hostile, ended)
    if log.exists():
        yield "programs started", log.read_text("utf-8").strip()[:300]
    if (folder / CANARY).exists():
        (folder / CANARY).unlink()
        yield "programs started", f"a program left {CANARY}"


def judged(hostile: bool, ended: forked.Ended) -> Iterator[tuple[str, str]]:
    """What is wrong with how a program ended."""
    if ended.hung:
        yield "hangs", f"no end after {PATIENCE:.0f} s"
        return
    if "Traceback (most recent call last)" in ended.output:
        yield "tracebacks", last_line(ended.output)
    if ended.code not in (0, 2):
        yield "different", f"exit code {ended.code}: {last_line(ended.output)}"
    if ended.code == 2 and len(ended.output.encode()) > LONGEST:
        yield "different", f"a message of {len(ended.output.encode())} bytes: {last_line(ended.output)[:80]}"
    if found := OBEYED.search(ended.output):
        yield "different", f"{found[0]!r} goes to the terminal"
    if hostile and ended.code != 2:
        yield "programs started", f"a stranger's class is not refused, exit code {ended.code}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if anything was found that must not be."""
    options = arguments(__doc__, 2000, words)
    forked.preload(("configs",), ("train", "merge.__main__", "curation.settings"))
    for name in [name for name in sys.modules if name.partition(".")[0] in TOLD]:
        del sys.modules[name]  # so that importing it again is told
    work = Path(tempfile.mkdtemp(prefix="configs-")).resolve()
    try:
        tally = Tally("configs", "configurations", options)
        for seed in numbered(options, tally):
            hostile = seed % 4 == 3
            case = with_stranger(seed) if hostile else mutated(seed)
            tally.add(f"{case.kind}{', stranger' if hostile else ''}", seed, play(case, hostile, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tally.end(options.write)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

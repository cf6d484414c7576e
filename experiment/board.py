"""TensorBoard over a folder of experiments, opened on what matters: validation accuracy, reward and KL.

    python -m experiment.board runs [--port 6006]

Prints the address that has these charts pinned above all others; the board listens on this machine only.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from guards.arguments import Parser
from guards.printable import printable_lines

MOST = 6
"""Specialties whose validation is pinned."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the address and become TensorBoard.

    Returns:
        2 if there is no such folder; otherwise TensorBoard takes over.
    """
    parser = Parser(prog="python -m experiment.board", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"), help="folder of experiments")
    parser.add_argument("--port", type=int, default=6006)
    given = parser.parse_args(arguments)
    if not given.runs.is_dir():
        print(printable_lines(f"board: {given.runs} is no folder; has an experiment run?"), file=sys.stderr)
        return 2
    print(f"open  {address(given.runs, given.port)}", flush=True)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(given.runs), "--host", "127.0.0.1"]
    command += ["--port", str(given.port), "--samples_per_plugin", "images=200,text=200"]
    os.execv(sys.executable, command)


def address(runs: Path, port: int) -> str:
    """The board's address with its first charts pinned; those that no run draws are left out by TensorBoard."""
    pins = json.dumps([{"plugin": "scalars", "tag": tag} for tag in pinned(runs)], separators=(",", ":"))
    return f"http://127.0.0.1:{port}/?pinnedCards={quote(pins, safe='')}&smoothing=0#timeseries"


def pinned(runs: Path) -> list[str]:
    """Tags in order: validation of the specialties that most experiments have, reward, right answers, KL, loss."""
    specialties: Counter[str] = Counter()
    for file in sorted(runs.glob("*/experiment.json")):
        try:
            specialties.update(list(json.loads(file.read_text("utf-8"))["specialties"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a board is for looking, also at what is damaged
    validation = [f"val/accuracy/{name}" for name, _ in specialties.most_common(MOST)]
    return [*validation, "train/reward/total", "train/reward/correct", "train/kl/ref_nats", "train/loss"]


if __name__ == "__main__":
    sys.exit(main())

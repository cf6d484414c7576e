"""Measure on one card: `python -m benchmarks.gpu --sizes 3b,7b --out DIR`, in at most six minutes.

Models have published shapes and random weights, made on the card; nothing is read or fetched. DIR/lines.jsonl has one
line per measurement, DIR/table.md the tables for docs/performance.md. `--sizes tiny` rehearses it on any machine.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.lines import Lines
from benchmarks.gpu.plan import SECONDS, measure_all
from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.table import markdown
from lightning_modules.reproducible import same_numbers


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", required=True, help=f"of {', '.join(SIZES)}, with commas between")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything together")
    parser.add_argument("--commit", help="to name in the lines where there is no git checkout")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="a card if there is one, else the processor")
    parser.add_argument("--no-tests", action="store_true", help="leave `pytest -m gpu` out")
    chosen = parser.parse_args(given)
    chosen.sizes = chosen.sizes.split(",")
    chosen.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if unknown := [name for name in chosen.sizes if name not in SIZES]:
        parser.error(f"--sizes: {', '.join(unknown)} not known; there are {', '.join(SIZES)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no card here")
    if chosen.device == "cpu" and chosen.sizes != ["tiny"]:
        parser.error(f"--sizes {','.join(chosen.sizes)}: needs a card, and PyTorch sees none; rehearse with tiny")
    return chosen


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and write lines and table; 1 where a part ended by an error of its own."""
    chosen = arguments(given)
    same_numbers()
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lines = Lines(chosen.out / "lines.jsonl", chosen.seconds, chosen.device, chosen.commit)
    try:
        measure_all(lines, chosen.sizes, chosen.device, tests=not chosen.no_tests)
    finally:
        if lines.written:
            (chosen.out / "table.md").write_text(markdown(lines.written))
    return int(lines.failed)


if __name__ == "__main__":
    raise SystemExit(main())

"""The command line that every worker process has, and the file it leaves. Imported by both environments."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import made_model, work


def arguments(works: Sequence[str], given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read what the driver hands over.

    Args:
        works: names of the kinds of work.
        given: command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description="A worker of a benchmark; started by its driver.")
    parser.add_argument("--size", choices=list(made_model.SIZES), required=True)
    parser.add_argument("--work", choices=list(works), required=True)
    parser.add_argument("--steps", type=int, default=1, help="optimisation steps that count, after one of warm-up")
    parser.add_argument("--group", type=int, default=work.GROUP, help="completions per prompt")
    parser.add_argument("--fixed-batch", action="store_true", help="loss and gradient norm of the fixed batch only")
    parser.add_argument("--folder", type=Path, required=True, help="holds the tokenizer, and whatever a trainer writes")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser.parse_args(given)


def leave(result: dict[str, Any], path: Path) -> None:
    """Write a worker's result."""
    path.write_text(json.dumps(result, indent=1) + "\n")

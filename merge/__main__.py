"""`python -m merge --config recipe.yaml`: the merge of a recipe, without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from merge.conflict import to_markdown
from merge.recipe import load_recipe
from merge.run import run_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a recipe and print its conflict report.

    Returns:
        0; 2 if the recipe or a source is refused; 1 if a file cannot be read or written.
    """
    parser = argparse.ArgumentParser(prog="python -m merge", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe YAML: sources, method, out, ...")
    try:
        summary = run_recipe(load_recipe(parser.parse_args(arguments).config))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    print(to_markdown(summary.report))
    print(f"{'unchanged' if summary.skipped else 'written'}: {summary.out / 'adapter'} sha256 {summary.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

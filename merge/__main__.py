"""`python -m merge run|report|verify|auto --config recipe.yaml`: a merge without training; `adopt` takes in experts."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.adoption import adopt
from artifacts.durable import write_text
from artifacts.interrupts import as_program, stop_alike
from guards.arguments import Parser
from guards.printable import printable_lines
from merge.auto import AUTO_MD, auto_merge
from merge.dense import verify_dense, write_dense
from merge.live import Live
from merge.methods.learned import LearnedScalars
from merge.plan import plan, told
from merge.recipe import Recipe, load_recipe
from merge.report import to_json, to_markdown
from merge.run import ADAPTER, DENSE, REJECTED, report_of, run_recipe, verify_result

REJECTED_CODE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge, report or verify.

    Returns:
        0; 1 if a file cannot be read or written; 2 if the recipe, a source or a result is refused; 3 if the gates
        rejected the merge; 130 if it was interrupted.
    """
    parser = Parser(prog="python -m merge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "run": "carry out a recipe; where it was interrupted it goes on",
        "report": "print the conflict report of a recipe, and write no adapter",
        "auto": "build all candidates, choose by examination on the recipe's live model, write the winner",
        "verify": "check a merged agent's files, and that its recipe makes the same bytes again",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, help="recipe YAML: sources, method, out, ...")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="dotted settings of the recipe")
        if name == "run":
            command.add_argument("--dry-run", action="store_true", help="check the sources and tell what it needs")
        if name == "report":
            command.add_argument("--json", type=Path, help="also write the report to this file")
    text = "check an adapter that PEFT saved, and copy it with a manifest that binds it to its base"
    adopting = commands.add_parser("adopt", help=text, description=text)
    adopting.add_argument("--adapter", type=Path, required=True, help="folder that PEFT saved")
    adopting.add_argument("--config", required=True, help="experiment YAML whose base the adapter was trained on")
    adopting.add_argument("--out", type=Path, required=True, help="adapter folder to write")
    options = parser.parse_args(arguments)
    stop_alike()
    try:
        if options.command == "adopt":
            return adopted(options.adapter, options.config, options.out)
        recipe = load_recipe(options.config, options.overrides)
        if options.command == "verify":
            return verify(recipe)
        if options.command == "auto":
            return auto(recipe)
        if options.command == "run" and options.dry_run:
            print(told(plan(recipe)))
            return 0
        model = recipe.live.model() if recipe.live and options.command == "run" else None
        recipe = informed(recipe, model)
        return report(recipe, options.json) if options.command == "report" else run(recipe, model)
    except KeyboardInterrupt:
        print("merge: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(printable_lines(error), file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2


def informed(recipe: Recipe, model: Any = None) -> Recipe:
    """The recipe with what its method needs of its live model."""
    if isinstance(recipe.method, LearnedScalars) and recipe.method.needs_scalars and recipe.live is not None:
        return with_scalars(recipe, model or recipe.live.model())
    return with_grams(recipe, model) if recipe.method.needs_grams else recipe


def with_grams(recipe: Recipe, model: Any = None) -> Recipe:
    """The recipe with Gram matrices from its live model, where it names one and none are given."""
    if recipe.grams or recipe.live is None:
        return recipe
    model, rows = model or recipe.live.model(), recipe.live.rows
    chains = by_specialty(recipe, model)
    folder = recipe.out / ".grams"
    return replace(recipe, grams={name: model.grams(name, c, folder / name, rows) for name, c in chains.items()})


def with_scalars(recipe: Recipe, model: Any) -> Recipe:
    """The recipe with the scalars that its method learns on the live model."""
    file = recipe.out / ".scalars.json"
    return replace(recipe, method=model.taught(recipe.method, by_specialty(recipe, model), file, recipe.live.rows))


def by_specialty(recipe: Recipe, model: Any) -> dict[str, list[Path]]:
    """Specialty -> adapter folders that together are its expert.

    Raises:
        ValueError: a source is called otherwise than a specialty, so that the model has no questions for it.
    """
    known = list(model.context.specialties)
    if unknown := sorted(set(recipe.sources) - set(known)):
        raise ValueError(
            f"sources: {unknown[0]!r} is no specialty of the live model ({', '.join(known)}), so there is nothing to "
            "ask it; name each source after its specialty, or set live.gate_n to 0 where only the gates ask"
        )
    return {name: [source.path for source in chain] for name, chain in recipe.sources.items()}


def auto(recipe: Recipe) -> int:
    """Search among the candidates by examination.

    Raises:
        ValueError: the recipe names no live model.
    """
    if recipe.live is None:
        raise ValueError("auto needs a model to ask: give the recipe `live: {config: ...}`")
    model = recipe.live.model()
    recipe = with_grams(recipe, model)
    chains = by_specialty(recipe, model)
    winner = auto_merge(recipe, chains, model.examine, protocol=model.protocol())
    print((recipe.out / AUTO_MD).read_text(encoding="utf-8"))
    return 0 if winner else REJECTED_CODE


def adopted(adapter: Path, config: str, out: Path) -> int:
    """Take up an adapter that PEFT saved, for the base of an experiment."""
    base = Live(config).model().base()
    found = adopt(adapter, out, base=base)
    print(f"written: {found.folder}, {found.layers} layers of the base with fingerprint {base.fingerprint}")
    print(f"the adapter calls its base {found.called!r}; that it is this one is for you to know")
    if found.translated:
        print(f"{found.translated} layers have older names in the file, and were written under the base's own")
    for name in found.dropped:
        print(f"left out: {name}, which equals the base's")
    return 0


def run(recipe: Recipe, model: Any = None) -> int:
    """Carry out a recipe and print its report; where there is a live model, the gates ask the agent questions."""
    asks = model is not None and recipe.live is not None and recipe.live.gate_n
    examination = model.examination(by_specialty(recipe, model), recipe.live.gate_n) if asks else None
    stood = any((folder / ADAPTER).is_dir() for folder in (recipe.out, recipe.out / REJECTED))
    summary = run_recipe(recipe, examination=examination, base=model.base() if model is not None else None)
    print(to_markdown(summary.report))
    if stood and not summary.skipped:
        print(f"replaced: the agent in {recipe.out} was made by another recipe, version or examination")
    print(f"{'unchanged' if summary.skipped else 'written'}: {summary.out / 'adapter'} sha256 {summary.sha256}")
    if summary.accepted and recipe.dense is not None:
        losses = write_dense(summary.out / ADAPTER, recipe.dense, summary.out / DENSE)["rounding_loss"]
        print(f"written: {summary.out / 'dense'}; rounding takes at most {max(losses.values()):.2%} of an update")
    if not summary.accepted:
        print(f"rejected: the gates above keep it from being the result of {recipe.out}")
    return 0 if summary.accepted else REJECTED_CODE


def report(recipe: Recipe, path: Path | None) -> int:
    """Print the conflict report."""
    found = report_of(recipe)
    print(to_markdown(found))
    if path is not None:
        write_text(path, to_json(found))
    return 0


def verify(recipe: Recipe) -> int:
    """Check the files in the recipe's `out`, merge again elsewhere, and compare.

    Raises:
        ValueError: a file was changed, or the recipe makes another adapter.
    """
    folder = recipe.out if (recipe.out / ADAPTER).is_dir() else recipe.out / REJECTED
    stands = verify_result(folder)
    with tempfile.TemporaryDirectory() as aside:
        again = run_recipe(replace(recipe, out=Path(aside), gate="warn"))
    if (folder / DENSE).exists():
        verify_dense(folder / DENSE, folder / ADAPTER)
    if again.sha256 != stands.sha256:
        raise ValueError(
            f"{recipe.out}: the recipe makes another adapter, sha256 {again.sha256} instead of {stands.sha256}; "
            "was it made with other versions of the code or of torch?"
        )
    print(f"verified: {folder / ADAPTER} sha256 {stands.sha256}; the recipe makes the same bytes again")
    return 0


if __name__ == "__main__":
    as_program(main)

"""Choose among merges by examination: all candidates are built, each is tried on the live model, the best is confirmed.

The literature disagrees on which rule merges best; candidates cost seconds, so search takes the place of belief.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.adapter_files import adapter_sha256
from artifacts.durable import write_text
from artifacts.manifest import MANIFEST, get_text, put_text
from merge.gates import Answers, bootstrap_interval, gates_on_answers, share, summary
from merge.methods.interface import MergeMethod
from merge.recipe import Recipe, build_method, method_settings
from merge.report import number, table, to_json
from merge.run import ADAPTER, MergeSummary, run_recipe, run_recipes


def spec(path: str, **init_args: Any) -> dict[str, Any]:
    """A candidate, its class below `merge.methods`."""
    return {"class_path": f"merge.methods.{path}", "init_args": init_args}


CANDIDATES: dict[str, dict[str, Any]] = {
    "mean": spec("mean.Mean"),
    "task_arithmetic_0.4": spec("task_arithmetic.TaskArithmetic", lambda_=0.4),
    "task_arithmetic_0.6": spec("task_arithmetic.TaskArithmetic", lambda_=0.6),
    "task_arithmetic_1": spec("task_arithmetic.TaskArithmetic"),
    "caci": spec("ties.Ties"),
    "ties_unit": spec("ties.Ties", elect="unit", disjoint="sum"),
    "swudi_a": spec("swudi.Swudi"),
    "swudi_a_0.4": spec("swudi.Swudi", lambda_=0.4),
    "swudi": spec("swudi.Swudi", directions="all"),
    "wudi": spec("wudi.Wudi"),
    "tsv_m": spec("tsv_m.TsvM"),
    "tsv_m_all_0.5": spec("tsv_m.TsvM", share=1.0, lambda_=0.5),
    "core_ties": spec("core_ties.CoreTies"),
    "knots": spec("knots.Knots"),
    "magmax": spec("magmax.MagMax"),
    "breadcrumbs": spec("breadcrumbs.Breadcrumbs"),
    "dare_ties": spec("dare.Dare", consensus="ties"),
    "della": spec("della.Della"),
    "iso_c_0.5": spec("iso_c.IsoC", lambda_=0.5),
    "ace": spec("ace.Ace"),
    "ace_0.2": spec("ace.Ace", epsilon=0.2),
    "regmean": spec("regmean.RegMean"),
}
"""What `auto` builds where nothing else is said; those that need Gram matrices only where there are some."""

AUTO_JSON, AUTO_MD = "auto.json", "auto.md"

Examine = Callable[[Sequence[Path], str, str], list[bool]]
"""(adapter folders that act together, specialty, split) -> right or wrong per question."""


@dataclass(frozen=True)
class Examined:
    """One candidate on the selection split."""

    name: str
    method: dict[str, Any]
    gates: str
    """Verdict on its update."""
    sha256: str
    """Of the candidate's weights."""
    accuracy: dict[str, float]
    """Specialty -> share right."""
    ratio: dict[str, float]
    """Specialty -> accuracy over the expert's."""

    @property
    def worst(self) -> float:
        """The worst specialty's accuracy over its expert's: what is maximised."""
        return min(self.ratio.values())

    @property
    def key(self) -> tuple[float, float, str]:
        """Best first when sorted: by the worst specialty, then the mean, then the name."""
        return -self.worst, -sum(self.ratio.values()) / len(self.ratio), self.name

    def row(self) -> dict[str, Any]:
        """In JSON's types."""
        return vars(self) | {"worst": self.worst, "macro": sum(self.accuracy.values()) / len(self.accuracy)}


def over_expert(accuracy: float, expert: Sequence[bool]) -> float:
    """Accuracy as a multiple of the expert's; an expert without a right answer counts as having one."""
    return accuracy / max(share(expert), 1 / len(expert))


def auto_merge(
    recipe: Recipe,
    experts: Mapping[str, Sequence[Path]],
    examine: Examine,
    *,
    protocol: Mapping[str, Any],
    candidates: Mapping[str, Mapping[str, Any]] | None = None,
    manifest_extra: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> MergeSummary | None:
    """Build all candidates, choose on the validation split, confirm on the test split.

    Args:
        recipe: sources, weights, rank, Gram matrices and `out`; its method does not matter.
        experts: specialty -> adapter folders that together are its expert.
        examine: answers the questions of a split with adapters swapped into the live model.
        protocol: all that answers depend on besides the adapters, in JSON's types; what was examined before under the
            same protocol is not examined again.
        candidates: name -> class_path and init_args; None takes `CANDIDATES`.
        manifest_extra: as for `merge.run.merge_adapters`.
        say: is told what happens.

    Returns:
        The winner, written to `out`; None where no candidate passes, so that there is no result. Beside it stand
        auto.json and auto.md with all candidates, and candidates/<name>/.

    Choice: the worst specialty relative to its expert, not the mean: an agent that gives one specialty up is none.
    """
    built = {n: build_method(c["class_path"], c.get("init_args") or {}) for n, c in (candidates or CANDIDATES).items()}
    methods = {name: method for name, method in sorted(built.items()) if recipe.grams or not method.needs_grams}
    trials = [replace(recipe, method=m, out=recipe.out / "candidates" / n) for n, m in methods.items()]
    summaries = dict(zip(methods, run_recipes(trials, manifest_extra=manifest_extra), strict=True))
    asked = {
        "protocol": dict(protocol),
        "candidates": {name: merged.sha256 for name, merged in summaries.items()},
        "experts": {s: [adapter_sha256(path) for path in chain] for s, chain in experts.items()},
    }
    found = examined_before(recipe.out, asked)
    if found is None:
        found = search(summaries, methods, experts, examine, say) | {"asked": asked}
        write_text(recipe.out / AUTO_MD, to_markdown(found))
        put_text(recipe.out / AUTO_JSON, to_json(found))
    if not found["accepted"]:
        (recipe.out / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(recipe.out / ADAPTER, ignore_errors=True)  # an earlier winner, of other experts
        say(f"auto: no candidate passes; {recipe.out / AUTO_MD} tells why")
        return None
    summary = run_recipe(replace(recipe, method=methods[found["winner"]]), manifest_extra=manifest_extra)
    if not summary.skipped:
        say(f"auto: {found['winner']} is best by its worst specialty; {recipe.out / AUTO_MD} has the table")
    return summary


def examined_before(out: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The outcome of an earlier search over the same candidates, or None.

    Raises:
        DamagedError: an earlier search's outcome is not as it was written.
    """
    if not (out / AUTO_JSON).is_file():
        return None
    found = json.loads(get_text(out / AUTO_JSON))
    return found if found["asked"] == asked else None


def search(
    summaries: Mapping[str, MergeSummary],
    methods: Mapping[str, MergeMethod],
    experts: Mapping[str, Sequence[Path]],
    examine: Examine,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Examine every candidate on the selection split, and the best on the other.

    Returns:
        What auto.json says, but for what was asked.
    """
    held = {specialty: examine(chain, specialty, "val") for specialty, chain in experts.items()}
    tried = []
    for name, merged in summaries.items():
        accuracy = {s: share(examine([merged.out / ADAPTER], s, "val")) for s in experts}
        ratio = {s: over_expert(value, held[s]) for s, value in accuracy.items()}
        gates = merged.report["gates"]["verdict"]
        tried.append(Examined(name, method_settings(methods[name]), gates, merged.sha256, accuracy, ratio))
        say(f"candidate {name}: worst specialty {tried[-1].worst:.2f} of its expert, gates {gates}")
    tried.sort(key=lambda candidate: candidate.key)
    winner = next((candidate for candidate in tried if candidate.gates != "reject"), None)
    confirmed = winner and confirmation(experts, [summaries[winner.name].out / ADAPTER], examine)
    return {
        "candidates": [candidate.row() for candidate in tried],
        "experts": {specialty: share(answers) for specialty, answers in held.items()},
        "n": {specialty: len(answers) for specialty, answers in held.items()},
        "winner": winner.name if winner else None,
        "confirmation": confirmed,
        "accepted": confirmed is not None and confirmed["gates"]["verdict"] != "reject",
    }


def confirmation(experts: Mapping[str, Sequence[Path]], merged: Sequence[Path], examine: Examine) -> dict[str, Any]:
    """Base, expert and winner on the split that nothing was chosen on.

    Returns:
        Per specialty the accuracies and the paired interval of merged - expert; and what the gates say.
    """
    answers = {
        s: Answers(examine([], s, "test"), examine(chain, s, "test"), examine(merged, s, "test"))
        for s, chain in experts.items()
    }
    rows = {
        specialty: {
            "n": len(a.base),
            "base": share(a.base),
            "expert": share(a.expert),
            "merged": share(a.merged),
            "merged_minus_expert": list(bootstrap_interval(a.merged, a.expert)),
        }
        for specialty, a in answers.items()
    }
    return {"specialties": rows, "gates": summary(gates_on_answers(answers))}


def to_markdown(found: Mapping[str, Any]) -> str:
    """All candidates, best first, and the winner's confirmation."""
    specialties = list(found["experts"])
    head = ["candidate", *(f"{s} (n = {found['n'][s]})" for s in specialties), "macro", "worst / expert", "gates"]
    rows = []
    for c in found["candidates"]:
        accuracies = [c["accuracy"][s] for s in specialties]
        rows.append([c["name"], *map(number, [*accuracies, c["macro"], c["worst"]]), c["gates"]])
    own = [found["experts"][s] for s in specialties]
    rows.append(["experts, each on its own", *map(number, own), number(sum(own) / len(own)), "1", "-"])
    lines = ["# Candidates", ""]
    lines += ["Validation split, strict accuracy; chosen by the worst specialty over its expert.", ""]
    lines += table(head, rows)
    lines += [f"Winner: **{found['winner'] or 'none'}**, {'accepted' if found['accepted'] else 'not accepted'}.", ""]
    if found["confirmation"]:
        rows = []
        for s, r in found["confirmation"]["specialties"].items():
            low, high = r["merged_minus_expert"]
            figures = map(number, (r["base"], r["expert"], r["merged"]))
            rows.append([s, str(r["n"]), *figures, f"{low:+.3f} to {high:+.3f}"])
        lines += ["## Confirmation on the test split", ""]
        lines += table(["specialty", "n", "base", "expert", "merged", "merged - expert, 95 %"], rows)
        lines += [f"- {gate['verdict']}: {gate['text']}" for gate in found["confirmation"]["gates"]["gates"]]
    return "\n".join(lines).rstrip() + "\n"

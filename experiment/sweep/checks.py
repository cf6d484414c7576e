"""Whether the arms of a sweep can be run and compared: everything that is wrong with them, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.load import Loaded
from configs.problems import ConfigError, Problem, did_you_mean
from configs.show import changed_settings
from configs.tree import Branch, place_of
from experiment.sweep.reading import SweepFile, node_at
from experiment.sweep.runs import EVALUATE, RESERVED, Run, Runs, examiner


def check(runs: Runs) -> None:
    """Refuse a sweep that cannot be run to its end.

    Raises:
        ConfigError: everything that is wrong.
    """
    file = runs.file
    problems = list(reserved(file))
    if not problems:
        problems = [problem for arm in file.sweep.arms for problem in arm_faults(runs, arm)]
    if not problems:
        problems = [*shared_faults(runs), *budget_faults(runs)]
    if problems:
        raise ConfigError([one for i, one in enumerate(problems) if one not in problems[:i]])


def reserved(file: SweepFile) -> Iterator[Problem]:
    """Settings that are the sweep's own, and tuned settings of required experiments, which all arms share."""
    sweep, places = file.sweep, ["settings"]
    places += [f"arms.{arm}.{key}" for arm in sweep.arms for key in ("settings", "grid")] + ["tuning.grid"]
    for place in places:
        node = node_at(file.tree, place)
        for key in node.children if isinstance(node, Branch) else ():
            where, (called, _, own) = file.line_of(place, key), key.rpartition(":")
            if own in RESERVED and not (called and own in ("name", "seed")):
                message = f"the sweep sets {', '.join(RESERVED)} itself; {hint(own)}"
                yield Problem(where, f"{place}.{key}", None, message)
            elif called and place.endswith("grid"):
                message = (
                    "required experiments are shared by all combinations, so that their settings are not tuned; "
                    "give an arm a required experiment of its own by settings"
                )
                yield Problem(where, f"{place}.{key}", None, message)


def hint(key: str) -> str:
    """Where what a reserved setting means is said."""
    told = {"seed": "say it by seeds", "name": "an arm's name is its key", "only": "leave a specialty out by null"}
    return told.get(key, f"say it by {key} of the sweep" if key in ("runs_dir", "launcher") else "leave it out")


def arm_faults(runs: Runs, arm: str) -> list[Problem]:
    """What is wrong with an arm's experiment, and with each combination of its grid."""
    file, sweep = runs.file, runs.file.sweep
    place = place_of(file.tree, f"arms.{arm}")
    try:
        bare = runs.bare(arm)
    except ConfigError as error:
        return list(file.placed(error, arm))
    if not examiner(bare):
        message = f"{bare.path.name} has no callback {EVALUATE}, so that nobody examines the arm; add one"
        return [Problem(place, f"arms.{arm}", None, message)]
    if bare.experiment.only:
        message = "leave a specialty out of an arm by `specialties.NAME: null`; with `only` an experiment never ends"
        return [Problem(place, f"arms.{arm}", list(bare.experiment.only), message)]
    taken = {one.experiment.name for one in bare.beneath.values()}
    if arm in taken:
        message = f"is the name of a required experiment ({', '.join(sorted(taken))}); call the arm otherwise"
        return [Problem(place, f"arms.{arm}", None, message)]
    if unknown := [name for name in sweep.primary.specialties if name not in bare.experiment.specialties]:
        known = list(bare.experiment.specialties)
        message = f"arm {arm} has no specialty {unknown[0]!r}, only {', '.join(known)}"
        key = "primary.specialties"
        return [Problem(place_of(file.tree, key), key, unknown[0], message, did_you_mean(unknown[0], known))]
    problems = list(own_questions(file, arm, examiner(bare)))
    try:
        runs.arm(arm, sweep.seeds[0])
    except ConfigError as error:
        problems += file.placed(error, arm)
    for point in range(len(sweep.points(arm))):
        try:
            runs.tuning(arm, point, sweep.tuning.seeds[0])
        except ConfigError as error:
            problems += file.placed(error, arm, "grid")
    return problems


def own_questions(file: SweepFile, arm: str, callback: str) -> Iterator[Problem]:
    """Settings of an arm's examination that the sweep has keys for."""
    keys = [f"callbacks.{callback}.init_args.{name}" for name in ("n", "split")]
    for place in ("settings", f"arms.{arm}.settings", f"arms.{arm}.grid", "tuning.grid"):
        node = node_at(file.tree, place)
        for key in keys if isinstance(node, Branch) else ():
            if key in node.children:
                message = "how many questions are asked is said by `questions`, and by `tuning.questions`"
                yield Problem(file.line_of(place, key), f"{place}.{key}", None, message)


def shared_faults(runs: Runs) -> Iterator[Problem]:
    """Arms that differ in what they must share: what they are examined on, and what stands in one folder."""
    file, sweep = runs.file, runs.file.sweep
    first = next(iter(sweep.arms))
    known = list(runs.bare(first).experiment.specialties)
    found: dict[Path, tuple[str, Loaded]] = {}
    for arm in sweep.arms:
        place, run = place_of(file.tree, f"arms.{arm}"), runs.arm(arm, sweep.seeds[0])
        own = list(run.loaded.experiment.specialties)
        if not sweep.primary.specialties and set(own) != set(known):
            message = (
                f"examined on {', '.join(own)}, and arm {first} on {', '.join(known)}; name what counts by "
                "primary.specialties"
            )
            yield Problem(place, f"arms.{arm}", None, message)
        for name in sweep.shared:
            if name not in run.loaded.beneath:
                beneath = list(run.loaded.beneath)
                message = f"arm {arm} does not stand on {name!r}, only on {', '.join(beneath) or 'nothing'}"
                yield Problem(place_of(file.tree, "shared"), "shared", name, message, did_you_mean(name, beneath))
        for called, member in run.loaded.beneath.items():
            folder = Path(member.experiment.runs_dir) / member.experiment.name
            other, before = found.setdefault(folder, (arm, member))
            for key, both in changed_settings(before.resolved, member.resolved).items():
                message = (
                    f"its required experiment {called} is not that of arm {other}: {key} {both}; all arms of a seed "
                    f"share one. Set it for all, or give this arm its own by `{called}:name: NEW`"
                )
                yield Problem(place, f"arms.{arm}", None, message)
        for name in sweep.shared:
            folders = {
                Path(one.experiment.runs_dir) / one.experiment.name
                for one in (runs.arm(a, sweep.seeds[0]).loaded.beneath.get(name) for a in (first, arm))
                if one is not None
            }
            if len(folders) > 1:
                message = f"shared names {name!r}, and this arm has one of its own: {' and '.join(map(str, folders))}"
                yield Problem(place, f"arms.{arm}", None, message)


def budget_faults(runs: Runs) -> Iterator[Problem]:
    """Arms whose tuning is given more steps or rollouts than that of another."""
    from experiment.sweep.budget import given  # imports torch, which what is wrong otherwise need not wait for

    file, sweep = runs.file, runs.file.sweep
    if sweep.tuning is None:
        return
    found = {arm: given(tried(runs, arm)) for arm in sweep.arms}
    for what in next(iter(found.values())):
        counts = {arm: one[what] for arm, one in found.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{arm} {count}" for arm, count in counts.items())
            message = (
                f"every arm is tuned with as many {what} per seed, got {told}; an arm that is given more looks better"
            )
            yield Problem(place_of(file.tree, "tuning"), "tuning", None, message)


def tried(runs: Runs, arm: str) -> list[Run]:
    """An arm's combinations at the first tuning seed."""
    sweep = runs.file.sweep
    return [runs.tuning(arm, point, sweep.tuning.seeds[0]) for point in range(len(sweep.points(arm)))]

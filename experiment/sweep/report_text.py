"""A sweep's report in Markdown: what was fixed, the primary contrast, the arms, and apart from these the explored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from configs.show import flow
from evaluation.report_files import markdown, p_value, percent, points

PICTURE = "report.png"
NONE = "none: all seeds came out alike"
Plain = Mapping[str, Any]


def markdown_report(content: Plain) -> str:
    """All of it.

    Args:
        content: as of `experiment.sweep.report.content_of`.
    """
    parts = [
        f"# {content['name']}",
        content["question"],
        fixed(content),
        *primary(content),
        shown(content),
        *arms(content),
    ]
    parts += [*by_seed(content), *exploratory(content), *tuning(content), *differing(content), *sources(content)]
    return "\n\n".join(parts)


def fixed(content: Plain) -> str:
    """What was decided before the first run."""
    by, plan = content["fixed"]["primary"], content["fixed"]
    git = content["git"]
    commit = f"commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''}" if git else "outside of git"
    counted = [f"answers of {by['answers_of']}", f"the {by['guideline']} prompt"]
    counted.append(f"scorer {by['scorer']}" if by["scorer"] else "each protocol's own scorer")
    counted += [f"{tag} in {', '.join(values)}" for tag, values in by["where"].items()]
    told = (
        f"Fixed before the first run (plan sha256 {content['plan_sha256'][:16]}, {commit}): **{by['arm']}** against "
        f"**{by['against']}** on {', '.join(by['specialties']) or 'all specialties'}; {'; '.join(counted)}; "
        f"{plan['questions']} questions per specialty, {len(plan['seeds'])} seeds. Planned for a spread of "
        f"{100 * by['spread']:g} points between seeds, which shows differences from "
        f"{points(content['planned_detectable'])} points on with 80 %."
    )
    for one in content["extensions"]:
        added = [f"arms {', '.join(one['arms'])}"] * bool(one["arms"])
        added += [f"seeds {', '.join(map(str, one['seeds']))}"] * bool(one["seeds"])
        told += f" Added later, when {one['finished_before']} runs of arms had ended: {' and '.join(added)}"
        told += (
            "; who adds seeds after a look at the result finds differences that are not there more often than the "
            "intervals say."
            if one["seeds"] and one["finished_before"]
            else "."
        )
    return told


def seed_interval(one: Plain, sign: str = "") -> str:
    """A mean with its interval over seeds, in percent."""
    if math.isnan(one["low"]):
        return f"{100 * one['mean']:{sign}.1f} [{NONE}]"
    return percent(one["mean"], one["low"], one["high"], sign=sign)


def errors(one: Plain) -> str:
    """Standard errors of seed, patient and item, in points."""
    return " / ".join(dash(one[key]) for key in ("se_seed", "se_patient", "se_item"))


def dash(value: float) -> str:
    """A fraction in points, a dash where it cannot be told."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def crossed(one: Plain, sign: str = "") -> str:
    """The interval over seeds and patients at once."""
    low, high = one["crossed_low"], one["crossed_high"]
    return "-" if math.isnan(low) else f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


CONTRAST = ("arm", "against", "specialty", "n", "patients", "seeds", "difference, points [over seeds]", "p")
CONTRAST += ("visible, points", "sd of seeds", "error of seed / patient / item, points", "[over seeds and patients]")


def contrast_cells(contrast: Plain, specialty: str, one: Plain) -> list[str]:
    """One row under `CONTRAST`."""
    counts = [str(one[key]) for key in ("n", "n_clusters", "seeds")]
    figures = [seed_interval(one, "+"), p_value(one["p"]), points(one["detectable"]), dash(one["sd"])]
    return [contrast["arm"], contrast["against"], specialty, *counts, *figures, errors(one), crossed(one, "+")]


def confidence(content: Plain) -> str:
    """Coverage in percent."""
    return f"{100 * content['fixed']['primary']['confidence']:g} %"


def primary(content: Plain) -> list[str]:
    """The one contrast that was fixed, what it says, and its seeds."""
    found, cover = content["primary"], confidence(content)
    name, one = next(iter(found["figures"].items()))
    arm, against = found["arm"], found["against"]
    if math.isnan(one["low"]):
        says = "All seeds came out alike, so that nothing is known of other seeds: no evidence either way."
    elif one["low"] > 0 or one["high"] < 0:
        says = f"**{arm} is {'better' if one['low'] > 0 else 'worse'} than {against}**: the interval is without 0."
    else:
        says = (
            f"**No evidence of a difference** between {arm} and {against}; one of less than "
            f"{points(one['detectable'])} points would as a rule not have been seen."
        )
    rows = [contrast_cells(found, specialty, figures) for specialty, figures in found["figures"].items()]
    seeds = ", ".join(f"seed {seed} {100 * value:+.1f}" for seed, value in found["by_seed"].items())
    note = (
        f"The row that counts is {name}. Difference: paired by seed, mean over seeds with Student's {cover} interval "
        "over seeds, for these questions: how other seeds would come out. p: the t-test of the same. Visible: the "
        "smallest true difference that so many seeds of this spread find with 80 %. Errors of seed, patient and item "
        f"are apart; their squares add up to that of the last column, {cover} for other seeds and patients at once."
    )
    note += " Rows of single specialties are not what was fixed, and are exploratory." if len(rows) > 1 else ""
    told = ["## Primary contrast", says, markdown(CONTRAST, rows), f"{note} By seed, points: {seeds}."]
    if wide := [contrast_cells(found, name, figures) for name, figures in content["beside"].items()]:
        told += ["What it does not count, which was not fixed and is needed to read it:", markdown(CONTRAST, wide)]
    return told


def shown(content: Plain) -> str:
    """The picture of all arms and contrasts."""
    return f"![{content['name']}: arms and contrasts, with their seeds]({PICTURE})"


def arms(content: Plain) -> list[str]:
    """Each arm over seeds."""
    header = [
        "arm",
        "specialty",
        "n",
        "seeds",
        "right, % [over seeds]",
        "sd of seeds",
        "error of seed / patient / item",
    ]
    header.append("[over seeds and patients]")
    rows = []
    both = [*content["beneath"].items(), *content["arms"].items()]
    for arm, columns in both:
        for name, one in columns.items():
            counts = [str(one["n"]), str(one["seeds"])]
            rows.append([arm, name, *counts, seed_interval(one), dash(one["sd"]), errors(one), crossed(one)])
    note = f"Mean over seeds; the first interval is Student's {confidence(content)} over seeds, for these questions."
    note += f" Arms are compared by contrasts, not by these intervals. First what all stand on: {beneath(content)}."
    return ["## Arms", markdown(header, rows), note, budgets(content)]


def beneath(content: Plain) -> str:
    """The names of what all arms stand on."""
    return ", ".join(content["beneath"])


def budgets(content: Plain) -> str:
    """What the arms were given, and whether that is alike."""
    told = []
    for what in ("optimiser steps", "rollouts"):
        counts = {arm: content["given"][arm][what] for arm in content["arms"]}
        if len(set(counts.values())) == 1:
            told.append(f"as many {what}, {next(iter(counts.values()))}")
        else:
            told.append(f"**not as many {what}** ({', '.join(f'{arm} {count}' for arm, count in counts.items())})")
    return f"Per seed every arm was given {' and '.join(told)}; what it stands on is not counted."


def by_seed(content: Plain) -> list[str]:
    """Each seed with its interval by patient."""
    header = ("arm", "specialty", "seed", "n", "patients", "right, % [by patient]")
    rows = [
        [
            *(row["arm"], row["specialty"], str(row["seed"]), str(row["n"]), str(row["n_clusters"])),
            percent(row["accuracy"], row["low"], row["high"]),
        ]
        for row in content["by_seed"]
    ]
    note = (
        f"Within a seed: {confidence(content)} by Wilson at the effective number of questions, patients kept together. "
        "It says how other patients would come out with this very model, and nothing of other seeds."
    )
    return ["## Within a seed", markdown(header, rows), note]


def exploratory(content: Plain) -> list[str]:
    """All other contrasts, which were not fixed."""
    if not content["exploratory"]:
        return []
    rows = []
    for found in content["exploratory"]:
        for index, (name, one) in enumerate(found["figures"].items()):
            holm = p_value(found["p_holm"]) if not index else "-"
            rows.append([*contrast_cells(found, name, one), holm])
    note = (
        "**Not fixed beforehand**: they may say what to look at next, and show nothing by themselves. p (Holm) is "
        "corrected over these contrasts; their intervals are not."
    )
    return ["## Exploratory contrasts", note, markdown([*CONTRAST, "p (Holm)"], rows)]


def tuning(content: Plain) -> list[str]:
    """Everything that was tried."""
    if not content["tuning"]:
        return []
    plan, rows, edges = content["fixed"]["tuning"], [], []
    for arm, found in content["tuning"].items():
        for one in found["tried"]:
            scores = " / ".join(f"{100 * score:.1f}" for score in one["scores"])
            taken = "taken" if one["point"] == found["taken"] else ""
            rows.append([arm, settings(one["values"]), f"{100 * one['mean']:.1f}", scores, taken])
        edges += [f"{arm}: {key}" for key in found["at_the_edge"]]
    note = (
        f"Right of {plan['questions']} validation questions per specialty, mean over the seeds "
        f"{', '.join(map(str, plan['seeds']))}, which are none of those above; of equally good ones the first is taken."
    )
    note += (
        f" Taken at the edge of its grid, so that a better value may lie beyond: {', '.join(edges)}." if edges else ""
    )
    return ["## Tuning", markdown(("arm", "settings", "right, %", "by seed", ""), rows), note]


def settings(values: Plain) -> str:
    """Settings in one cell."""
    return ", ".join(f"{key}={flow(value)}" for key, value in values.items())


def differing(content: Plain) -> list[str]:
    """Settings in which the arms differ."""
    found = content["differences"]
    if not found:
        return ["## What the arms differ by", "Nothing: their settings are the same."]
    names = list(content["arms"])
    rows = [[key, *(flow(values[arm]).replace("|", "\\|") for arm in names)] for key, values in found.items()]
    return ["## What the arms differ by", markdown(["setting", *names], rows)]


def sources(content: Plain) -> list[str]:
    """The command, and the answers that every number above is made of."""
    rows = [[one["run"], one["answers"], one["sha256"]] for one in content["runs"]]
    command = f"```\n{content['command']}\n```"
    return ["## Command and answers", command, markdown(("run", "answers", "sha256"), rows)]

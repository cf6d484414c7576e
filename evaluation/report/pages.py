"""The pages of a report: what stands in them, each number from the function that also prints or draws it elsewhere."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from evaluation import comparison_report
from evaluation.baselines import lines_below, read_training_answers
from evaluation.compare import compared
from evaluation.costs import costs_of, costs_table, read
from evaluation.kept import kept_column, read_kept
from evaluation.matrix_table import shown_matrix
from evaluation.odds import read_odds
from evaluation.predictions import Prediction, by_variant, read_predictions
from evaluation.prices import read_prices
from evaluation.report.bars import bars_figure, bars_of, matter
from evaluation.report.cases import Gallery, add_answers, add_pictures, add_probes, records
from evaluation.report.conflicts import Conflicts, conflicts_of
from evaluation.report.curves import curves_figure, curves_of, runs_of
from evaluation.report.folder import INDEX, MARK, Folder
from evaluation.report.questions import Questions, questions_of
from evaluation.report_files import Table
from evaluation.scorers import main_scorer
from evaluation.scoring import matrix
from evaluation.seeds import differing, facts_of
from evaluation.systems import load_systems
from evaluation.tables import all_tables, telling_tags
from evaluation.verdict import Claim, verdict

TEMPLATES = Path(__file__).with_name("templates")
CASES = "cases.html"


@dataclass
class Section:
    """One experiment of the report.

    Attributes:
        name: unique in the report.
        folder: of the experiment.
        facts: what it is, by name.
        claims: the verdict.
        scorer: by what answers count.
        heads: (name, size) of the matrix's columns.
        lines: its rows: name, and cells with text and accuracy.
        tables: all further ones, by title.
        conflicts: of its merges.
        comparison: of its models with the first of them; its caption says by what.
        bars: tag -> address of its figure.
    """

    name: str
    folder: Path
    facts: dict[str, str]
    claims: Sequence[Claim]
    scorer: str
    heads: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, Sequence[Any]]]
    tables: Mapping[str, Table]
    conflicts: Conflicts | None
    comparison: Table | str
    bars: dict[str, str] = field(default_factory=dict)


def write_pages(
    experiments: Sequence[Path], folder: Folder, most: int, scorers: Sequence[str] = (), trust: Sequence[str] = ()
) -> list[str]:
    """Write a report.

    Args:
        experiments: folders of evaluated experiments.
        folder: gets the files.
        most: questions in the gallery; 0 takes all.
        scorers: further ones, as of `evaluation.tables.all_tables`.
        trust: as of `evaluation.report.questions.questions_of`.

    Returns:
        What was written and what could not be shown, in words.

    Raises:
        OSError: an experiment has no predictions, or the folder cannot be written.
        ValueError: a file of an experiment is damaged.
    """
    places = [place.parent if place.name == "evaluation" else place for place in experiments]
    if len({place.resolve() for place in places}) < len(places):
        raise ValueError(f"an experiment is named twice among {', '.join(map(str, places))}")
    names = names_of(places)
    gallery, sections, notes = Gallery(), [], []
    for place, name in zip(places, names, strict=True):
        predictions, kept = read_predictions(place), read_kept(place)
        print(f"{name}: scoring and comparing {len(predictions)} answers", flush=True)
        sections.append(section_of(name, place, predictions, kept, scorers))
        draw_bars(folder, sections[-1], by_variant(predictions)[""])
        print(f"{name}: reading its questions and pictures", flush=True)
        runs = [run for home in (*lineage_of(place), place) for run in runs_of(home)]
        wanted = {item.question_id for item in (*predictions, *kept)}
        wanted |= {row["question_id"] for run in runs for row in records(run / "samples.jsonl")}
        questions = questions_of(place, wanted, trust)
        notes += questions.notes
        notes += fill(gallery, folder, (name if len(places) > 1 else "", runs), (predictions, kept), questions, most)
    curves = curves_of(homes_of(places))
    notes += changed_note(gallery)
    shown = f"{len(gallery.cases)} of {gallery.total} questions in the gallery"
    context = {
        "title": ", ".join(names),
        "sections": sections,
        "differences": differences(places, names),
        "between": between(places) if len(places) > 1 else None,
        "curves": folder.figure("curves.svg", curves_figure(curves)) if curves else "",
        "costs": costs_table(list(dict.fromkeys(cost for place in places for cost in costs_of(place)))),
        "notes": notes,
        "shown": shown,
        "total": gallery.total,
        "data": {"cases": gallery.cases, "models": gallery.models},
    }
    for name, template in ((INDEX, "index.html"), (CASES, "cases.html")):
        folder.page(name, rendered(template, context))
    told = f"{shown}, {len(folder.pictures)} pictures, {folder.mebibytes:.1f} MiB"
    return [told, *notes[:10], *([f"and {len(notes) - 10} more notes in the page"] if len(notes) > 10 else [])]


def names_of(places: Sequence[Path]) -> list[str]:
    """What experiments are called: their folders' names, or the whole path where two share one."""
    names = [place.resolve().name for place in places]
    return [name if names.count(name) == 1 else str(place) for name, place in zip(names, places, strict=True)]


def homes_of(places: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of experiments and of those beneath them, each once: of two seeds each has its own."""
    homes = list({home.resolve(): home for place in places for home in (*lineage_of(place), place)}.values())
    return dict(zip(names_of(homes), homes, strict=True))


def lineage_of(place: Path) -> list[Path]:
    """The folders of the experiments beneath one, lowest first, that are there."""
    beneath = ((read(place / "experiment.json") or {}).get("required") or {}).values()
    found = [place.parent / str(one.get("name", "")) for one in beneath]
    return [folder for folder in found if folder != place.parent and folder.is_dir()]


def section_of(
    name: str, place: Path, predictions: Sequence[Prediction], kept: Sequence[Prediction], scorers: Sequence[str]
) -> Section:
    """Everything about one experiment; errors as of `write_pages`."""
    main, training = by_variant(predictions)[""], read_training_answers(place)
    heads, lines = shown_matrix(matrix(main), lines_below(predictions, training), kept_column(kept))
    used = " and ".join(sorted({main_scorer(item) for item in main}))
    beside = (training, kept, read_prices(place), read_odds(place))
    tables = all_tables(predictions, scorers, telling_tags(predictions), *beside)
    claims = verdict(main, kept)
    return Section(
        name, place, facts(place), claims, used, heads, lines, tables, conflicts_of(place), compared_with_first(place)
    )


def compared_with_first(place: Path) -> Table | str:
    """As `python -m evaluation.compare RUN`; why not, where that refuses."""
    try:
        rows, told = compared(load_systems([place]))
    except ValueError as error:
        return str(error)
    return Table(comparison_report.HEADER, list(map(comparison_report.cells, rows)), told)


def between(places: Sequence[Path]) -> Table | str:
    """As `python -m evaluation.compare RUN RUN`: namesakes, the later experiments' against the first's."""
    try:
        rows, told = compared(load_systems(places))
    except ValueError as error:
        return str(error)
    return Table(comparison_report.HEADER, list(map(comparison_report.cells, rows)), told)


def facts(place: Path) -> dict[str, str]:
    """What an experiment is, for its head."""
    settings = read(place / "experiment.json") or {}
    status = read(place / "status.json") or {}
    commits = set()
    for file in sorted(place.glob("*/provenance.json")):
        git = (read(file) or {}).get("git") or {}
        commits.add(f"{str(git.get('commit'))[:12]}{' with changes' if git.get('dirty') else ''}")
    found = {
        "folder": str(place),
        "what": settings.get("description"),
        "trained by": (settings.get("module") or {}).get("class_path"),
        "model": (settings.get("model") or {}).get("class_path"),
        "seed": settings.get("seed"),
        "code": ", ".join(sorted(commits)),
        "state": " ".join(str(status[key]) for key in ("state", "time") if key in status),
    }
    return {key: str(value) for key, value in found.items() if value not in (None, "")}


def differences(places: Sequence[Path], names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """What each further experiment was made with otherwise than the first, seeds included; by title."""
    first, *others = [facts_of(place) for place in places]
    found = []
    for name, other in zip(names[1:], others, strict=True):
        seeds = {
            key: f"{first.seeds.get(key, 'not stated')} and {other.seeds.get(key, 'not stated')}"
            for key in sorted(first.seeds.keys() | other.seeds.keys())
            if first.seeds.get(key) != other.seeds.get(key)
        }
        found.append((f"{names[0]} and {name}", differing(first, other) | seeds))
    return found


def draw_bars(folder: Folder, section: Section, main: Sequence[Prediction]) -> None:
    """Draw a figure for every tag that tells the questions apart."""
    models = matter(main)
    for tag in telling_tags(main):
        stem = hashlib.sha256(f"{section.name} {tag}".encode()).hexdigest()[:16]
        section.bars[tag] = folder.figure(f"by-{stem}.svg", bars_figure(bars_of(models, tag)))


def fill(
    gallery: Gallery,
    folder: Folder,
    experiment: tuple[str, Sequence[Path]],
    answers: tuple[Sequence[Prediction], Sequence[Prediction]],
    questions: Questions,
    most: int,
) -> list[str]:
    """Add an experiment's cases to the gallery; of several experiments, each shows questions of its own.

    Args:
        gallery: gets them.
        folder: gets their pictures.
        experiment: what leads its models' names, and the runs whose probes are shown.
        answers: to its own questions and to the base's.
        questions: of its data sets.
        most: as of `write_pages`.

    Returns:
        Which pictures cannot be shown.
    """
    lead, runs = experiment
    main = [*by_variant(answers[0])[""], *answers[1]]
    named = {item.model: f"{lead}: {item.model}" if lead else item.model for item in main}
    shown = add_answers(gallery, main, named, questions, most)
    return add_pictures(folder, [*shown.values(), *add_probes(gallery, runs, questions)])


def changed_note(gallery: Gallery) -> list[str]:
    """Says that sets have changed, if they have."""
    if not gallery.changed:
        return []
    return [f"{gallery.changed} questions are not any more as they were asked: their texts and pictures are not shown"]


def rendered(name: str, context: Mapping[str, Any]) -> str:
    """A page of its template. Whatever stands in data is escaped, and only our own script and style may act in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["heat"] = heat
    own = {
        "style": (TEMPLATES / "report.css").read_text("utf-8"),
        "script": (TEMPLATES / f"{Path(name).stem}.js").read_text("utf-8"),
    }
    hashes = {key: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
              for key, text in own.items()}  # fmt: skip
    policy = (
        f"default-src 'none'; img-src 'self' file:; script-src {hashes['script']}; style-src {hashes['style']}; "
        "base-uri 'none'; form-action 'none'"
    )
    own = {key: Markup(text) for key, text in own.items()}
    return environment.get_template(name).render(**context, **own, policy=policy, mark=Markup(MARK))


def heat(share: float) -> str:
    """The class of a cell by its accuracy, in tenths; none where it has none."""
    return "" if math.isnan(share) else f"h{min(9, int(10 * share))}"

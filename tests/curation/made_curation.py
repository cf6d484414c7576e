# A curation of two small pools of phantoms, and a teacher at an endpoint who knows their own traces.
import json

import yaml

from curation.__main__ import main
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.skin import SkinLesions
from lightning_modules.rewards.guidelines import load_guidelines
from tests.endpoints.fake_endpoint import Says, completion

POPULATION = {"n_patients": 10, "val_fraction": 0.0, "test_fraction": 0.2}
GUIDELINES = load_guidelines(["differential", "intuitive", "analytical", "bayesian"])
POOLS = {"chest": ChestFilms, "skin": SkinLesions}


def asked_about(asked, known):
    """The example and the guideline of a request; no guideline for the neutral prompt."""
    text, _, instruction = asked.text.partition("\nHow to reason: ")
    name = next((g.name for g in GUIDELINES.values() if g.instruction == instruction), "")
    return known[text, asked.pictures[0]], name


def honest(known):
    """A teacher that answers as the phantoms' own traces do."""

    def behave(asked, number):
        example, name = asked_about(asked, known)
        return Says(completion(example.trace(name)))

    return behave


def write(folder, url, **changes):
    """A configuration; `changes` replaces top-level keys."""
    pools = {
        name: {
            "data": {"class_path": f"{pool.__module__}.{pool.__name__}", "init_args": POPULATION},
            "source": f"phantoms, {name}",
            "licence": "made here",
        }
        for name, pool in POOLS.items()
    }
    options = {
        "base_url": url,
        "model": "fake-1",
        "retries": 1,
        "backoff_s": 0.01,
        "timeout_s": 5.0,
        "give_up_after": 5,
    }
    teacher = {"class_path": "curation.endpoint.Endpoint", "init_args": options}
    folder.mkdir(parents=True, exist_ok=True)
    content = {"out": str(folder / "out"), "pools": pools, "teacher": teacher, **changes}
    (folder / "curation.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "curation.yaml")


def run(config, *overrides):
    return main(["run", "--config", config, *overrides])


def counts_of(folder):
    return json.loads((folder / "out" / "counts.json").read_text())


def rows_of(folder):
    files = sorted((folder / "out" / "data").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

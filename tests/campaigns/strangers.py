"""A stranger's class in one slot of a shipped configuration, drawn from a seed: it has to be refused, unimported."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.mutate_configs import Mutant

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STRANGERS = ("subprocess.Popen", "os.system", "webbrowser.open", "antigravity.geohash", "campaign_trap.Trap")
"""What no configuration may bring in: of the standard library, and a module that tells when it is imported."""
CORPUS = "lightning_modules.families.tiny.TinyQwen2_5_VL"


def shipped() -> list[tuple[str, Any]]:
    """(kind, content) of every configuration that comes with the code; a merge preset as a recipe's method."""
    presets = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((CONFIGS / "merge").glob("*.yaml"))]
    recipes = [{"sources": {"a": ["runs/a"]}, "method": preset, "out": "runs/merged"} for preset in presets]
    sets = [yaml.safe_load((CONFIGS / "curation" / f"{name}.yaml").read_text()) for name in ("phantoms", "endpoint")]
    runs = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(CONFIGS.glob("*.yaml"))]
    kinds = {"recipe": recipes, "curation": sets, "experiment": runs}
    return [(kind, content) for kind, contents in kinds.items() for content in contents]


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from places(value)


def with_stranger(seed: int) -> Mutant:
    """One slot of one configuration names a stranger: an existing one, or one that is added."""
    draw = random.Random(seed)
    kind, tree = draw.choice(shipped())
    stranger = draw.choice(STRANGERS)
    slot = {"class_path": stranger, "init_args": {"args": ["true"]}}
    slots = [(container, key) for container, key in places(tree) if key == "class_path"]
    if slots and (kind != "experiment" or draw.random() < 0.5):
        container, key = draw.choice(slots)
        container[key] = stranger
    elif kind != "experiment":
        tree["method" if kind == "recipe" else "teacher"] = slot
    elif (where := draw.choice(("model", "corpus", "callbacks", "specialties", "methods"))) == "model":
        tree["model"] = slot
    elif where == "corpus":
        tree["model"] = {"class_path": CORPUS, "init_args": {"corpus": stranger}}
    elif where == "methods":
        merging = {"class_path": "callbacks.merge_experts.MergeExperts", "init_args": {"methods": {"x": slot}}}
        tree["callbacks"] = {**(tree.get("callbacks") or {}), "stranger": merging}
    else:
        tree[where] = {**(tree.get(where) or {}), "stranger": slot}
    return Mutant(kind, yaml.safe_dump(tree).encode())

"""Where a base is from: what an adapter says of it, where that lies now, and the lines that load both again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AUTO_CLASSES = ("AutoModelForImageTextToText", "AutoModelForCausalLM")
"""Of transformers: for models that read pictures, and for language models."""
FAMILY = re.compile(r"lightning_modules\.families(\.\w+)+")


def base_name(origin: Mapping[str, Any]) -> str:
    """What PEFT calls base_model_name_or_path: trained weights' folder, else the published one, else our class.

    Args:
        origin: see `lightning_modules.families.base.VisionLanguageFamily.origin`.
    """
    return str(origin.get("weights") or (origin.get("init_args") or {}).get("path") or origin.get("class_path") or "")


def loading_lines(origin: Any, adapter: str = "adapter") -> list[str]:
    """Five lines of Python that load a base and an adapter on it with plain PEFT.

    Args:
        origin: as a manifest holds it; whatever is no origin gives no lines.
        adapter: the adapter's folder.

    Returns:
        For a published checkpoint lines of transformers alone, else those of our family; local folders by their whole
        path.
    """
    if not isinstance(origin, Mapping) or not isinstance(origin.get("init_args"), Mapping):
        return []
    settings, weights = dict(origin["init_args"]), origin.get("weights")
    agent = f"agent = PeftModel.from_pretrained(base, {adapter!r})"
    if "path" in settings:
        settings["path"] = whole_path(str(settings["path"]))
    if "path" in settings and weights is None:
        source = ", ".join([repr(settings["path"]), *named(settings, "revision")])
        stated = origin.get("checkpoint")
        auto = stated.get("auto_class") if isinstance(stated, Mapping) else None
        auto = auto if auto in AUTO_CLASSES else AUTO_CLASSES[0]
        return [
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            f"base = {auto}.from_pretrained({', '.join([source, *named(settings, 'dtype')])})",
            agent,
            f"tokenizer = AutoTokenizer.from_pretrained({source})",
        ]
    if not FAMILY.fullmatch(str(origin.get("class_path"))):
        return []
    module, _, name = origin["class_path"].rpartition(".")
    folder = "None" if weights is None else f"Path({whole_path(str(weights))!r})"
    return [
        "from pathlib import Path",
        "from peft import PeftModel",
        f"from {module} import {name}",
        f"base = {name}({name}.Config(**{settings!r}), weights={folder}).model",
        agent,
    ]


def placed(origin: Mapping[str, Any], near: Path, root: Path) -> dict[str, Any]:
    """An origin whose local folders are named as they are found now: results are moved, and commands start elsewhere.

    Args:
        origin: as a manifest holds it.
        near: folder of the adapter that holds it.
        root: of this project.
    """
    settings, weights = dict(origin.get("init_args") or {}), origin.get("weights")
    if isinstance(settings.get("path"), str):
        settings["path"] = found_again(settings["path"], near, root)
    found = found_again(weights, near, root) if isinstance(weights, str) else None
    return {**origin, "init_args": settings, "weights": found}


def found_again(place: str, near: Path, root: Path) -> str:
    """Where a folder lies that was recorded: as it is called, or so called beside the adapter, or in the project.

    What is found is only taken for it: the base's fingerprint tells whether it is. A name of the hub stays as it is.
    """
    end = Path(*Path(place).parts[-3:])  # <experiment>/<specialty>/base, of one that was trained
    beside = [folder / part for folder in near.resolve().parents for part in (Path(place), end)]
    folders = [Path(place), *beside, root / place]
    files = ("config.json", "model.safetensors")
    return next((str(f) for f in folders if any((f / name).is_file() for name in files)), place)


def named(settings: Mapping[str, Any], key: str) -> list[str]:
    """A setting as a keyword argument, where it is given."""
    return [f"{key}={settings[key]!r}"] if isinstance(settings.get(key), str) else []


def whole_path(path: str) -> str:
    """A local folder's whole path; names of the hub stay."""
    return str(Path(path).resolve()) if Path(path).is_dir() else path

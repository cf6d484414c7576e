"""A model again: from where a manifest says that it is from, or from a checkpoint's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.build import build, import_class
from configs.checkpoints import model_of
from configs.schema import Component
from lightning_modules.families.base import VisionLanguageFamily


class UnknownOriginError(ValueError):
    """What is said of a base leads to none."""


def checkpoint_origin(name: str) -> dict[str, Any]:
    """The origin of a published checkpoint, as `VisionLanguageFamily.origin` would tell it.

    Args:
        name: a folder, or a hub id with or without `@revision`.

    Raises:
        CheckpointError: it cannot be read, or no family takes its model.
    """
    return {**model_of(name), "weights": None}


def family_of(origin: Mapping[str, Any], **settings: Any) -> VisionLanguageFamily:
    """Build the family that an origin names: one of ours alone, since a manifest is a file from somewhere.

    Args:
        origin: class path, its settings, and the folder of trained weights if there are any.
        settings: in place of some of those settings.

    Raises:
        UnknownOriginError: it names no family of this project, or settings that it does not have.
        CheckpointError: the checkpoint is not there, or not whole.
    """
    class_path, stated = str(origin.get("class_path")), origin.get("init_args")
    try:
        found = import_class(class_path, ())
    except ImportError as error:
        raise UnknownOriginError(f"the base is from {class_path[:200]}: {error}") from error
    if not issubclass(found, VisionLanguageFamily):
        raise UnknownOriginError(f"the base is from {class_path[:200]}, which is no family of models")
    weights = origin.get("weights")
    corpus = str((stated or {}).get("corpus", "datamodules."))
    if weights is None and not corpus.startswith("datamodules."):
        raise UnknownOriginError(
            f"the base is from {class_path}, with a tokenizer made by {corpus[:200]}: not run here"
        )
    try:
        component = Component(class_path, {**(stated or {}), **settings})
        return build(component, weights=None if weights is None else Path(str(weights)))
    except TypeError as error:  # a setting of another version
        raise UnknownOriginError(f"the base is from {class_path} with settings that it has not: {error}") from error

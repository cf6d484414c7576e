"""A model again: from where a manifest says that it is from, or from a checkpoint's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from configs.build import build, import_class, imported_config
from configs.checkpoints import model_of
from configs.schema import Component
from lightning_modules.families.base import VisionLanguageFamily

OWN_CORPORA = "datamodules."
"""Where a function that writes a tokenizer's corpus must lie to be called."""


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
    class_path, stated = str(origin.get("class_path")), origin.get("init_args") or {}
    place = f"the base is from {class_path[:200]}"
    try:
        found = import_class(class_path, ())
    except ImportError as error:
        raise UnknownOriginError(f"{place}: {error}") from error
    config = imported_config(found)
    if not issubclass(found, VisionLanguageFamily) or config is None:
        raise UnknownOriginError(f"{place}, which is no family of models")
    known = {field.name for field in fields(config)}
    if not isinstance(stated, Mapping) or (strange := sorted(set(map(str, stated)) - known)):
        told = strange[0] if isinstance(stated, Mapping) else type(stated).__name__
        raise UnknownOriginError(f"{place}, which has no setting {told[:100]!r}; is it of another version?")
    weights, corpus = origin.get("weights"), str(stated.get("corpus", OWN_CORPORA))
    if weights is None and not corpus.startswith(OWN_CORPORA):
        raise UnknownOriginError(f"{place}, with a tokenizer made by {corpus[:200]}, which is not run here")
    try:
        component = Component(class_path, {**stated, **settings})
        return build(component, weights=None if weights is None else Path(str(weights)))
    except (TypeError, LookupError, AttributeError) as error:  # a value that no such setting has
        raise UnknownOriginError(f"{place}, and its settings do not fit: {error}") from error

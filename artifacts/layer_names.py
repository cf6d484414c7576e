"""The several names of one layer: in versions of transformers and PEFT, wrapped or not, in memory and on disk."""

from __future__ import annotations

PREFIX = "base_model.model."
"""What PEFT puts before every name."""
WRAPPERS = frozenset("_orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module base_layer".split())
"""What compilers, sharding and PEFT itself insert into names, anywhere."""
ROOTS = frozenset("base_model model module language_model".split())
"""What versions of transformers and training loops put before a layer's name, in several orders."""


def core(name: str) -> str:
    """What all spellings of a layer's name share.

    Examples:
        >>> core("base_model.model.model.layers.0.mlp"), core("model.language_model.layers.0.mlp")
        ('layers.0.mlp', 'layers.0.mlp')
        >>> core("visual.blocks.0.attn"), core("model.visual.blocks.0.attn")
        ('visual.blocks.0.attn', 'visual.blocks.0.attn')
    """
    parts = plain_parts(name)
    first = next((place for place, part in enumerate(parts) if part not in ROOTS), len(parts) - 1)
    return ".".join(parts[first:])


def unprefixed(name: str) -> str:
    """A name without PEFT's prefix, however often it was put there."""
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name


def meant(name: str) -> list[str]:
    """A layer's name in an adapter's file as PEFT may have known it: its layers were wrapped later, or before."""
    own = unprefixed(name[max(0, name.find(PREFIX)) :])  # what stands before PEFT's prefix was wrapped around PEFT
    return list(dict.fromkeys([".".join(plain_parts(own)), own]))


def plain_parts(name: str) -> list[str]:
    """The parts of a name but for wrappers."""
    return [part for part in name.split(".") if part not in WRAPPERS]

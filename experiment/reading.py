"""Whether a policy reads text as the experts did that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.adapter_checks import reading
from artifacts.adapter_files import AdapterError
from lightning_modules.policy import Policy

TOKENIZER = "tokenizer_sha256"
"""Key of what a manifest, and a run's provenance, record of it."""


def reading_of(policy: Policy) -> dict[str, str]:
    """What is recorded of how a policy reads text; see `artifacts.adapter_checks.reading`."""
    family = policy.family
    return reading(family.tokenizer.backend_tokenizer.to_str(), family.prompt_ids("Is this normal?", [1]))


def check_tokenizer(folder: Path, manifest: Mapping[str, Any], policy: Policy) -> None:
    """Refuse an expert that was trained with another tokenizer than the base has now.

    Raises:
        AdapterError: names both hashes.
    """
    recorded, now = (manifest["extra"] or {}).get(TOKENIZER), reading_of(policy)[TOKENIZER]
    if recorded not in (None, now):
        raise AdapterError(
            f"{folder}: trained with a tokenizer of sha256 {recorded}, and the base's has {now} now; was its "
            "tokenizer.json changed, or the model's revision?"
        )

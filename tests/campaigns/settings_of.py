"""`settings FILE [key=value ...]`: a curation's settings as its command reads them, and nothing that follows."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Read them; 0, or 2 where they are refused."""
    from configs.problems import ConfigError
    from curation.settings import load_settings, resolved

    try:
        resolved(load_settings(words[0], list(words[1:])))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Feed:
    kind: str
    size: int = 0
    guidelines: Any = None
    spare: int = 0
    read_picture: Any = None

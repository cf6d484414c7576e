"""A lab's own package, `labpkg`, which builds on ours: what the configurations of these tests name, and trust."""

import sys
import textwrap

import pytest

PACKAGE = {
    "__init__.py": "",
    "parts.py": """
        from __future__ import annotations
        from dataclasses import dataclass, field
        from pathlib import Path
        from typing import Any, Literal
        from callbacks.experiment_callback import ExperimentCallback
        from datamodules.base import VQADataModule
        from lightning_modules.families.base import VisionLanguageFamily
        from lightning_modules.stage import Stage

        @dataclass(frozen=True)
        class Schedule:
            warmup: int = 5
            decay: float = 0.5

            def __post_init__(self):
                if self.warmup < 0:
                    raise ValueError(f"warmup must be at least 0, got {self.warmup}")

        class Model(VisionLanguageFamily):
            @dataclass(frozen=True)
            class Config:
                size: int = 8

        class Module(Stage):
            @dataclass(frozen=True)
            class Config:
                group_size: int = 8
                beta: float = 0.04
                kl: Literal["k1", "k2", "k3"] = "k3"
                betas: tuple[float, float] = (0.9, 0.99)
                names: tuple[str, ...] = ()
                scale: bool = True
                tau: float | None = None
                schedule: Schedule = field(default_factory=Schedule)
                method: dict[str, Any] = field(default_factory=dict)

                def __post_init__(self):
                    if self.group_size < 2:
                        raise ValueError(f"group_size must be at least 2, got {self.group_size}")
                    if self.beta < 0:
                        raise ValueError(f"beta must be at least 0, got {self.beta}")

        class Other(Stage):
            @dataclass(frozen=True)
            class Config:
                beta: float = 1.0

        class Watch(ExperimentCallback):
            def __init__(self, monitor: str = "loss", *, experiment: Any) -> None:
                self.monitor = monitor

        class Data(VQADataModule):
            @dataclass(frozen=True)
            class Config:
                root: Path
                val: float = 0.1
                test: float = 0.2

                def __post_init__(self):
                    if self.val + self.test >= 1:
                        raise ValueError("val + test must be below 1")
    """,
}


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """An empty working folder with `labpkg` in it, and on the path."""
    (tmp_path / "labpkg").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "labpkg" / name).write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "labpkg"]:
        del sys.modules[name]

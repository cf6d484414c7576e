"""The phases of a lineage, each as one command and what stands on disk when it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns import forked, nano
from tests.campaigns.strikes import Strike


def trained(name: str, *overrides: str) -> tuple[str, ...]:
    """The command that runs an experiment."""
    return ("train.py", "--config", f"{name}.yaml", *overrides)


@dataclass(frozen=True)
class Scene:
    """A command that is disturbed."""

    words: tuple[str, ...]
    """The command."""
    keep: tuple[str, ...] = ()
    """What stands below runs/ when it starts: of the foundation, or of what the command itself once made."""
    weight: int = 3
    """How often it is taken."""
    workers: str = ""
    """Word in the arguments of the processes that it starts, where it starts some."""


BASE, DSA = ("base",), ("base", "dsa")
EXPERTS = {
    name: tuple(f"{name}/{part}" for part in ("alpha", "beta", "experiment.json", "layout"))
    for name in ("agent", "merging")
}
ADOPT = ("merge", "adopt", "--adapter", "runs/dsa/alpha/adapter", "--config", "dsa.yaml", "--out", "runs/adopted")
SCENES = {
    "base training": Scene(trained("short")),
    "SFT": Scene(trained("dsa"), BASE),
    "SFT, best kept": Scene(trained("dsa", "name=best", "fit.keep=best", "only=[alpha]"), BASE, weight=2),
    "SFT, made longer": Scene(trained("dsa", "trainer.max_steps=5"), DSA, weight=2),
    "RL": Scene(trained("gba"), DSA, weight=6),
    "RL, several updates": Scene(trained("gba", "name=twice", "module.init_args.updates_per_rollout=2"), DSA),
    "merge": Scene(trained("agent", "name=merging", "callbacks.evaluate=null"), (*DSA, *EXPERTS["merging"]), weight=5),
    "matrix": Scene(trained("agent"), (*DSA, *EXPERTS["agent"], "agent/merged"), weight=4),
    "required experiments": Scene(trained("whole"), weight=3),
    "side by side": Scene(trained("dsa", "name=side", "workers=2"), BASE, weight=1, workers="side:workers=1"),
    "matrix, side by side": Scene(
        trained("agent", "workers=2"), (*DSA, *EXPERTS["agent"], "agent/merged"), weight=1, workers="spawn_main"
    ),
    "adopt": Scene(ADOPT, DSA, weight=1),
    "merge command": Scene(("merge", "run", "--config", "merge.yaml"), (*DSA, *EXPERTS["agent"]), weight=2),
    "curation": Scene(("curation", "run", "--config", "curation.yaml"), DSA, weight=3),
}
FOUNDATION = (trained("dsa"), trained("agent"))


class Scenery:
    """Where scenes are played: one folder for all, so that paths which are written down are the same."""

    def __init__(self, work: Path) -> None:
        """Take an empty folder."""
        self.work, self.here = work, work / "here"
        self.runs = self.here / "runs"
        self.touches: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def found(self, *commands: tuple[str, ...]) -> None:
        """Lay the foundation that further commands build upon.

        Raises:
            RuntimeError: a command fails although nobody disturbs it.
        """
        self.here.mkdir(parents=True)
        nano.write(self.here)
        for words in commands:
            self.must(words)
        shutil.copytree(self.runs, self.work / "foundation")

    def know(self, name: str) -> None:
        """Play a scene undisturbed, unless that was done: its end is the reference.

        Raises:
            RuntimeError: as `found`.
        """
        if name in self.touches:
            return
        scene = SCENES[name]
        shutil.rmtree(self.runs)
        shutil.copytree(self.work / "foundation", self.runs)
        if any(path.startswith("merging/") for path in scene.keep):
            self.must(scene.words)
        self.keep(scene, self.work / "start" / name)
        self.reset(name)
        counted = self.work / "touches"
        counted.write_bytes(b"")
        counting = Strike(moment=0, below=str(self.runs), tally=str(counted))
        self.seconds[name] = self.must(scene.words, counting.arm).seconds
        self.touches[name] = counted.stat().st_size
        shutil.copytree(self.runs, self.work / "reference" / name)

    def must(self, words: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> forked.Ended:
        """A command that has to succeed."""
        ended = forked.finished(*forked.started(words, self.here, prepare), patience=600)
        if ended.code != 0:
            raise RuntimeError(
                f"{' '.join(words)} ended with {ended.code} although nobody disturbed it:\n{ended.output}"
            )
        return ended

    def keep(self, scene: Scene, start: Path) -> None:
        """Put apart what stands when a scene starts."""
        start.mkdir(parents=True)
        for part in scene.keep:
            if (path := self.runs / part).is_dir():
                shutil.copytree(path, start / part)
            elif path.exists():
                (start / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, start / part)

    def reset(self, name: str) -> None:
        """Put the scene's start in place of whatever stands there."""
        shutil.rmtree(self.runs, ignore_errors=True)
        shutil.copytree(self.work / "start" / name, self.runs)

    def reference(self, name: str) -> Path:
        """What the scene ends in when nobody disturbs it."""
        return self.work / "reference" / name

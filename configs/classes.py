"""From a dotted path to what it names: only in this project's packages and in those that a configuration trusts.

Reading a configuration imports nothing else, and decides so before it imports anything. While torch and the like are
not loaded yet, the project's own modules are imported with stand-ins for the libraries that take long, so that their
real `Config` dataclasses and base classes tell what is wrong within a second; those modules are then put aside.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.problems import nearest
from guards.printable import printable, shown

ROOT = Path(__file__).resolve().parents[1]
OWN = frozenset(path.parent.name for path in ROOT.glob("*/__init__.py")) - {"tests"}
"""The project's packages."""
LIGHT = ("configs", "guards")
"""Those that are imported already and load no library that takes long."""
SLOW = {"torch", "lightning", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors", "torchmetrics"} | {
    *("tensorboard", "matplotlib", "accelerate", "gguf")
}
SLOWEST = {"torch", "lightning", "transformers"}
"""Where these are there already, nothing is won by stand-ins."""
ASIDE: dict[str, ModuleType] = {}
"""Modules that hold stand-ins, while they are not in use."""


class RefusedError(ValueError):
    """A dotted path that is not followed, or leads nowhere; `near`: whether something near it may have been meant."""

    def __init__(self, message: str, *, near: bool = False) -> None:
        super().__init__(message)
        self.near = near


class StandIn(type):
    """Class of the stand-ins: what is asked of one is a stand-in too, and as a decorator it changes nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name, (), {"__module__": f"{cls.__module__}.{cls.__qualname__}", "_stands_in": True})

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        """The function that a stand-in decorates, the stand-in itself, or an instance of a class of ours."""
        if "_stands_in" not in vars(cls):
            return super().__call__(*arguments, **options)
        return arguments[0] if len(arguments) == 1 and not options and callable(arguments[0]) else cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __getitem__ = __or__


class StandInModule(ModuleType):
    """A module of which everything is a stand-in."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return vars(self).setdefault(name, StandIn(name, (), {"__module__": self.__name__, "_stands_in": True}))


class StandInFinder(MetaPathFinder, Loader):
    """Finds a stand-in for every module of the slow libraries."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Take what is slow; leave all else to Python."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in SLOW else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one: what it is asked for comes into being then."""
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


FINDER = StandInFinder()


def swap() -> None:
    """Exchange the modules that are slow, or of this project, for those put aside."""
    ours = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in (OWN - set(LIGHT)) | SLOW}
    for name in ours:
        del sys.modules[name]
    sys.modules.update(ASIDE)
    ASIDE.clear()
    ASIDE.update(ours)
    if FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)
    else:
        sys.meta_path.insert(0, FINDER)


@contextmanager
def world_of(dotted: str) -> Iterator[None]:
    """The modules by which a dotted path is looked at: stand-ins for our own code while what is slow is not loaded."""
    inside = FINDER in sys.meta_path
    real = ASIDE if inside else sys.modules
    wanted = dotted.partition(".")[0] in OWN and not SLOWEST <= set(real)
    if wanted == inside:
        yield
        return
    swap()
    try:
        yield
    finally:
        swap()


def named(dotted: str, trust: Sequence[str] = ()) -> Any:
    """The object at a dotted path, imported if it may be.

    Args:
        dotted: module and name, `package.module.Class`.
        trust: top-level packages besides the project's own whose code may run.

    Raises:
        RefusedError: the path is none, leads nowhere or may not be followed, or the module cannot be imported.
    """
    module_path, _, name = dotted.rpartition(".")
    parts = dotted.split(".")
    if not module_path or not all(part.isidentifier() and part[0] != "_" for part in parts):
        raise RefusedError(f"{shown(dotted)} is not of the form package.module.Class")
    allow(parts[0], trust)
    try:
        found = getattr(importlib.import_module(module_path), name)
    except (ImportError, AttributeError) as error:
        raise RefusedError(f"no such class or function {shown(dotted)}: {printable(str(error))}", near=True) from error
    except Exception as error:  # a module may raise what it likes when it is imported
        raise RefusedError(f"cannot be imported: {type(error).__name__}: {printable(str(error))}") from error
    home = str(getattr(found, "__module__", None))
    if home.partition(".")[0] not in {*OWN, *trust}:
        raise RefusedError(f"{shown(dotted)} is no class or function of its package, but comes from {shown(home)}")
    return found


def allow(package: str, trust: Sequence[str]) -> None:
    """Refuse a top-level package that is neither the project's nor trusted, and one that stands in front of ours.

    Raises:
        RefusedError: says what to write.
    """
    if package in OWN:
        spec = PathFinder.find_spec(package)
        if spec is None or not spec.origin or not Path(spec.origin).resolve().is_relative_to(ROOT):
            raise RefusedError(f"{spec and spec.origin} stands in front of the project's package {package}")
    elif package not in trust:
        raise RefusedError(
            f"the package {shown(package)} is not this project's, and is not imported unless the configuration says "
            f"trust: [{package[:60]}] at its top level, or the command line trust=[{package[:60]}]",
            near=True,
        )
    elif package not in sys.modules and PathFinder.find_spec(package) is None:
        sys.path.append(str(Path.cwd()))  # one file in the working folder is a package too


def similar(dotted: str, trust: Sequence[str]) -> str:
    """'did you mean' among the classes of the project and of what is trusted, as their sources spell them."""
    paths = []
    for package in sorted({*OWN, *({dotted.partition(".")[0]} & set(trust))}):
        spec = PathFinder.find_spec(package) if package.isidentifier() else None
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder).rglob("*.py")):
                module = ".".join((package, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
                source = file.read_text(encoding="utf-8", errors="replace")
                paths += [f"{module}.{name}" for name in re.findall(r"^class (\w+)", source, re.MULTILINE)]
    known = dotted.partition(".")[0] in {*OWN, *trust}
    by_name = {path.rpartition(".")[2]: path for path in paths if known}
    near = nearest(dotted, paths, cutoff=0.8) or by_name.get(nearest(dotted.rpartition(".")[2], by_name) or "")
    return f"did you mean {near!r}?" if near else ""

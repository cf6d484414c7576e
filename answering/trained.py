"""What a user names to be asked, exported or served: runs, experiments, adapters, bases; and what each stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.adapter_files import AdapterError, is_complete, read_manifest
from artifacts.base_files import read_base
from artifacts.base_origin import placed
from artifacts.chains import named_chains
from artifacts.manifest import MANIFEST
from lightning_modules.families.found import checkpoint_origin

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = "experiment.json"
BASE = "base"
"""What the bare base is called, as in the matrix."""


@dataclass(frozen=True)
class Trained:
    """A base, and the adapters that act on it.

    Attributes:
        name: as its row of a matrix is called; of a base, `base`.
        adapters: that act together, lowest first; none of a base.
        origin: of the base, its folders as they are found now.
        precision: of the frozen weights, as it was trained: "float32" leaves them as they are stored.
    """

    name: str
    adapters: tuple[Path, ...]
    origin: Mapping[str, Any]
    precision: str = "float32"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.adapters[-1] if self.adapters else Path(str(self.origin.get("weights") or self.place))

    @property
    def place(self) -> str:
        """What its base is called: a checkpoint's folder or id, or the class that draws it."""
        return str((self.origin.get("init_args") or {}).get("path") or self.origin.get("class_path"))

    @property
    def bare(self) -> Trained:
        """Its base alone."""
        return Trained(BASE, (), self.origin, self.precision)


def trained(names: Sequence[str], base: str = "") -> list[Trained]:
    """Find what is named, each with its base and its chain of adapters.

    Args:
        names: folders of runs, of merged agents, of adapters or of whole experiments; or a base: the folder of its run,
            or a checkpoint's folder or hub id.
        base: checkpoint, or folder of a trained base, in place of where the adapters say that theirs is.

    Raises:
        AdapterError: a folder holds nothing of this kind, or an adapter's parent or base is not told.
        DamagedError: a trained base is not as it was written.
        CheckpointError: what is no folder of ours is no checkpoint either.
    """
    folders = [inner for name in names for inner in inside(Path(name).expanduser())]
    adapters = [str(folder) for folder in folders if not is_base(folder)]
    chains = named_chains(adapters, {BASE}, Path("runs"))
    bases = [base_at(str(folder)) for folder in dict.fromkeys(folders) if is_base(folder)]
    named = base_at(base).origin if base else None
    return bases + [of_chain(name, chain, named) for name, chain in chains.items()]


def one(name: str, base: str = "") -> Trained:
    """Find what is named, where it must be one thing; arguments and errors as of `trained`.

    Raises:
        ValueError: it is several; names them.
    """
    found = trained([name], base)
    if len(found) > 1:
        told = "\n  ".join(str(member.folder) for member in found)
        raise ValueError(f"{name}: holds {len(found)} that can be asked; name one of them:\n  {told}")
    return found[0]


def inside(folder: Path) -> list[Path]:
    """The adapters, or the bases, of an experiment's folder; of any other, the folder itself.

    Raises:
        AdapterError: an experiment has left nothing yet.
    """
    if not (folder / SETTINGS).is_file():
        return [folder]
    adapters = [*sorted(folder.glob("*/adapter")), *sorted(folder.glob("merged/*/adapter"))]
    bases = [path.parent for path in sorted(folder.glob("*/base")) if (path / MANIFEST).is_file()]
    if found := [path for path in adapters if is_complete(path)] + bases:
        return found
    raise AdapterError(f"{folder}: this experiment has left no expert, agent or base yet; is it still training?")


def is_base(folder: Path) -> bool:
    """Whether a name stands for a base: what is no folder may be one of a hub."""
    trained_one = (folder / "base" / MANIFEST).is_file() or (folder / "model.safetensors").is_file()
    return trained_one or (folder / "config.json").is_file() or not folder.is_dir()


def base_at(name: str) -> Trained:
    """A base by the folder of its run, its own, or a checkpoint's name; errors as of `trained`."""
    for folder in (Path(name).expanduser() / "base", Path(name).expanduser()):
        if (folder / MANIFEST).is_file():
            origin = (read_base(folder).get("extra") or {}).get("base")
            if not isinstance(origin, Mapping):
                raise AdapterError(f"{folder / MANIFEST}: does not say from which model the base was trained")
            return Trained(BASE, (), {**placed(origin, folder, ROOT), "weights": str(folder)})
    place = Path(name).expanduser()
    if not place.exists() and place.parent != Path() and place.parent.is_dir():  # a run, misspelt, and none of a hub
        held = [path.name for path in sorted(place.parent.iterdir()) if path.is_dir() and path.name[0] != "."]
        raise AdapterError(f"{name}: no such folder; {place.parent} holds {', '.join(held[:20]) or 'none'}")
    return Trained(BASE, (), checkpoint_origin(name))


def of_chain(name: str, chain: Sequence[Path], base: Mapping[str, Any] | None) -> Trained:
    """An expert or an agent by its chain of adapters; arguments and errors as of `trained`."""
    top = chain[-1]
    said = (read_manifest(top)["extra"] or {}).get("base")
    if base is None and not isinstance(said, Mapping):
        raise AdapterError(f"{top}: its manifest does not say where its base is from; give it as --base")
    origin = placed(said, top, ROOT) if base is None else replaced(said, base)
    return Trained(name, tuple(chain), origin, precision_of(top))


def replaced(said: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    """The origin of a base that lies elsewhere now, with the settings that it was trained under."""
    settings = dict((said or {}).get("init_args") or {}) if isinstance(said, Mapping) else {}
    if not isinstance(said, Mapping) or said.get("class_path") != base.get("class_path"):
        # a base that was drawn and trained here, exported since: as it was, in float32
        settings = {"dtype": settings.get("dtype", "float32"), "system": settings.get("system")}
    return {**base, "init_args": {**settings, **(base.get("init_args") or {})}}


def precision_of(adapter: Path) -> str:
    """The precision of the frozen weights, as the adapter's experiment records it."""
    for folder in adapter.parents[1:5]:
        try:
            return str(json.loads((folder / SETTINGS).read_text(encoding="utf-8")).get("precision", "float32"))
        except (OSError, ValueError, AttributeError):
            continue
    return "float32"


def of_one_base(found: Sequence[Trained]) -> list[Trained]:
    """The same, after the bare base, if all stand on one; bases are told apart by where they lie.

    Raises:
        AdapterError: they do not; names two.
    """
    experts = [member for member in found if member.adapters]
    prints = {member.name: read_manifest(member.adapters[-1])["base_fingerprint"] for member in experts}
    first = experts[0] if experts else found[0]
    other = next((name for name in prints if prints[name] != prints[first.name]), None)
    places = (member for member in found if not member.adapters and where(member) != where(first))
    other = other or next((str(member.folder) for member in places), None)
    if other is not None:
        raise AdapterError(f"{first.name} ({where(first)}) and {other} are of different bases; serve one at a time")
    return [first.bare, *experts]


def where(member: Trained) -> str:
    """Where a base lies."""
    place = str(member.origin.get("weights") or member.place)
    return str(Path(place).resolve()) if Path(place).exists() else place

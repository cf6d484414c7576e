"""Keep the weights of the best validation, also where a run's folder is moved before it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override


class BestWeights(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose state names files by where its folder is now.

    Choice: in another folder than before, Lightning's own forgets the best score and takes the next validation for the
        best one. The checkpoints have moved along with the state that names them.
    """

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})

"""Qwen2-VL, and what was trained from it."""

from __future__ import annotations

from transformers import Qwen2VLForConditionalGeneration

from lightning_modules.families.qwen_vl import QwenVL


class Qwen2VL(QwenVL):
    """A Qwen2-VL checkpoint."""

    model_types = ("qwen2_vl",)
    model_class = Qwen2VLForConditionalGeneration

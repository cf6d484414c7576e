"""Qwen2.5-VL, and what was trained from it: Lingshu, MedVLM-R1 and others."""

from __future__ import annotations

from transformers import Qwen2_5_VLForConditionalGeneration

from lightning_modules.families.qwen_vl import QwenVL


class Qwen2_5_VL(QwenVL):
    """A Qwen2.5-VL checkpoint."""

    model_types = ("qwen2_5_vl",)
    model_class = Qwen2_5_VLForConditionalGeneration

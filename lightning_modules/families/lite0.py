"""EfficientNet-Lite0, the picture tower of the real-input model: a mobile network without squeeze-and-excitation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

Stage = tuple[int, int, int, int, int]
"""Repeats, kernel size, stride of the first block, expansion factor, output channels."""

LITE0_STAGES: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: the odd pixel of padding goes to the bottom and the right.

    torch's own padding is symmetric; with it the weights, trained under SAME, see every stride-2 grid shifted.
    """

    @override
    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[-2:]), self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv:
    """A SAME convolution without bias, as every one here is followed by a batch norm."""
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class InvertedResidual(nn.Module):
    """Expand 1x1, filter each channel, project 1x1; add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion != 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv, self.bn0 = conv(inputs, width, 1), norm(width)
        self.depthwise_conv, self.bn1 = conv(width, width, kernel, stride, groups=width), norm(width)
        self.project_conv, self.bn2 = conv(width, outputs, 1), norm(outputs)

    @override
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite without its classifier; batch norms keep the statistics they were trained with, always.

    Source: Tan and Le, arXiv:1905.11946; the Lite variant drops squeeze-and-excitation and uses ReLU6.
    """

    def __init__(self, stages: tuple[Stage, ...] = LITE0_STAGES, stem: int = 32, width: int = 1280) -> None:
        """Build the network with random weights.

        Args:
            stages: rows of blocks, the published table by default.
            stem: channels after the first convolution.
            width: channels of the feature map.
        """
        super().__init__()
        self.width = width
        self.conv_stem, self.bn0 = conv(3, stem, 3, 2), norm(stem)
        blocks, channels = [], stem
        for repeats, kernel, stride, expansion, outputs in stages:
            for index in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if index == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = conv(channels, width, 1), norm(width)
        self.eval()

    @override
    def train(self, mode: bool = True) -> Lite0:
        return super().train(False)

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        """Feature map.

        Args:
            pixels: (N, 3, S, S) uint8 RGB, S a multiple of 32.

        Returns:
            (N, width, S / 32, S / 32) float, not negative.
        """
        x = (pixels.to(self.conv_stem.weight.dtype) - 127.0) / 128.0
        x = F.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.bn1(self.conv_head(x)))


def load_lite0(path: Path) -> Lite0:
    """Read the published weights.

    Args:
        path: the `.pth` state dict; its names carry an underscore before each of ours. It exists in no safer format, so
            it is read by torch's restricted unpickler, which builds tensors and nothing else.

    Raises:
        RuntimeError: names or shapes are not those of EfficientNet-Lite0.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    renamed = {".".join(part.removeprefix("_") for part in name.split(".")): value for name, value in stored.items()}
    with torch.device("meta"):  # nothing is drawn: every value comes from the file
        tower = Lite0()
    tower.load_state_dict({name: value for name, value in renamed.items() if not name.startswith("fc.")}, assign=True)
    return tower

"""The GGUF container: metadata and tensors of one file, dequantised to float32.

Source: the GGUF specification, version 3, and the block layouts of ggml (`block_q8_0`, `block_q4_1`).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCK = 32
"""Weights that share one scale."""
Q4_1 = np.dtype([("scale", "<f2"), ("low", "<f2"), ("nibbles", "u1", BLOCK // 2)])
Q8_0 = np.dtype([("scale", "<f2"), ("values", "i1", BLOCK)])
FORMATS = {
    0: ("F32", np.dtype("<f4"), 1),
    1: ("F16", np.dtype("<f2"), 1),
    3: ("Q4_1", Q4_1, BLOCK),
    8: ("Q8_0", Q8_0, BLOCK),
}


class GGUFError(ValueError):
    """The file is not GGUF, is cut short, or uses a format that is not read here."""


class GGUFFile:
    """One file, mapped into memory.

    Attributes:
        metadata: key -> scalar, string or list.
        tensor_names: in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Parse the header.

        Raises:
            GGUFError: the file is not little-endian GGUF of version 2 or 3, or its header is cut short.
        """
        self.path = path
        self._bytes = memoryview(np.memmap(path, np.uint8, "r")) if path.stat().st_size else memoryview(b"")
        self._at = 4
        if bytes(self._bytes[:4]) != b"GGUF":
            raise GGUFError(
                f"{path}: begins with {bytes(self._bytes[:4])!r}, not with b'GGUF'; was it downloaded whole?"
            )
        try:
            version, tensors, keys = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
            if version not in (2, 3):
                raise GGUFError(f"{path}: GGUF version {version}, expected 2 or 3")
            self.metadata = {self._string(): self._value(self._scalar("I")) for _ in range(keys)}
            self._tensors = {self._string(): self._tensor_info() for _ in range(tensors)}
        except (struct.error, UnicodeDecodeError) as error:
            raise GGUFError(
                f"{path}: the header ends at byte {self._at} ({error}); was it downloaded whole?"
            ) from error
        alignment = self.metadata.get("general.alignment", 32)
        self._start = -(-self._at // alignment) * alignment
        self.tensor_names = tuple(self._tensors)

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._bytes, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        self._at += length
        if self._at > len(self._bytes):
            raise struct.error(f"a string of {length} bytes")
        return str(self._bytes[self._at - length : self._at], "utf-8")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            kind, length = self._scalar("I"), self._scalar("Q")
            return [self._value(kind) for _ in range(length)]
        if kind not in SCALARS:
            raise GGUFError(f"{self.path}: metadata of type {kind}, known are {sorted(SCALARS)}, {STRING} and {ARRAY}")
        return self._scalar(SCALARS[kind])

    def _tensor_info(self) -> tuple[tuple[int, ...], int, int]:
        shape = tuple(self._scalar("Q") for _ in range(self._scalar("I")))[::-1]  # stored fastest axis first
        return shape, self._scalar("I"), self._scalar("Q")

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, dequantised.

        Args:
            name: of `tensor_names`.

        Returns:
            float32 in the shape of the file's matrices, outputs before inputs; freshly allocated.

        Raises:
            GGUFError: a quantisation that is not read here, or the file is cut short.
        """
        shape, kind, offset = self._tensors[name]
        if kind not in FORMATS:
            known = [label for label, _, _ in FORMATS.values()]
            raise GGUFError(f"{self.path}: tensor {name!r} has ggml type {kind}; read here: {known}")
        label, dtype, per_block = FORMATS[kind]
        try:
            raw = np.frombuffer(self._bytes, dtype, math.prod(shape) // per_block, self._start + offset)
        except ValueError as error:
            raise GGUFError(
                f"{self.path}: tensor {name!r} ends after the file ({error}); was it downloaded whole?"
            ) from error
        return DEQUANTISE[label](raw).reshape(shape)


def dequantise_q4_1(blocks: np.ndarray) -> np.ndarray:
    """Compute w = scale * q + low, with q in 0..15; a block's first 16 weights are the low nibbles.

    Args:
        blocks: (N,) of `Q4_1`.

    Returns:
        (N, 32) float32.
    """
    levels = np.concatenate([blocks["nibbles"] & 0x0F, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
    return blocks["scale"].astype(np.float32)[:, None] * levels + blocks["low"].astype(np.float32)[:, None]


def dequantise_q8_0(blocks: np.ndarray) -> np.ndarray:
    """Compute w = scale * q, with q in -127..127.

    Args:
        blocks: (N,) of `Q8_0`.

    Returns:
        (N, 32) float32.
    """
    return blocks["scale"].astype(np.float32)[:, None] * blocks["values"].astype(np.float32)


def as_float32(values: np.ndarray) -> np.ndarray:
    """A copy in float32."""
    return values.astype(np.float32)


DEQUANTISE = {"F32": as_float32, "F16": as_float32, "Q4_1": dequantise_q4_1, "Q8_0": dequantise_q8_0}

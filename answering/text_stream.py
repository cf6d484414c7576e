"""The text of an answer while it is being written: no half character, and together exactly the whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

HALF = "\ufffd"
"""What a tokenizer makes of bytes that are no character yet."""


class TextStream:
    """Tells the text that new tokens add, as soon as it is certain.

    Choice: only the newest tokens are decoded again, since some tokenizers decode a token by the one before it; the
        whole text would cost more with every token.
    """

    def __init__(self, decode: Callable[[list[int]], str], ends: Collection[int], tell: Callable[[str], None]) -> None:
        """Begin with nothing.

        Args:
            decode: tokens to text.
            ends: tokens that end an answer, and are no text.
            tell: is given each piece, never an empty one.
        """
        self.decode, self.ends, self.tell = decode, ends, tell
        self.told = ""
        self._start = self._read = 0

    def __call__(self, row: int, ids: Sequence[int]) -> None:
        """Take a row's tokens so far; there is one row."""
        said = [token for token in ids if token not in self.ends]
        known = self.decode(said[self._start : self._read])
        text = self.decode(said[self._start :])
        if len(text) > len(known) and text.startswith(known) and not text.endswith(HALF):
            self._start, self._read = self._read, len(said)
            self._tell(text[len(known) :])

    def close(self, whole: str) -> None:
        """Tell what is left of the whole text, which is known by now."""
        if whole.startswith(self.told):
            self._tell(whole[len(self.told) :])

    def _tell(self, piece: str) -> None:
        self.told += piece
        if piece:
            self.tell(piece)

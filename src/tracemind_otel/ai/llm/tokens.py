"""Token counts for a stream that ended before the provider reported any."""

from __future__ import annotations

from typing import Protocol


class Tokenizer(Protocol):
    """Counts the tokens of a string; its counts are marked as estimated."""

    def count(self, text: str, model: str) -> int:
        """The number of tokens that a model makes of a string."""
        ...


class CharacterTokenizer:
    """Counts four characters as a token, which is within a third for English and needs no vocabulary."""

    def count(self, text: str, model: str) -> int:
        """A quarter of the characters, rounded up."""
        return -(-len(text) // 4)

"""A pattern that is tried only where one of its words stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HintedPattern:
    """A pattern whose matches all have one of a few words near their beginning.

    Looking for the words first is many times quicker than trying the pattern at every character.
    """

    pattern: re.Pattern[str]
    """The pattern."""
    words: tuple[str, ...]
    """The words, in lower case."""
    reach: int
    """The most characters from the beginning of a match to the beginning of its word."""
    lead: int = 0
    """The most characters from the beginning of the word to the beginning of a match that it stands before."""

    def sub(self, replacement: Callable[[re.Match[str]], str], text: str) -> str:
        """The text with every match replaced, as `re.Pattern.sub` does it."""
        lower = text.lower().translate(_ALSO_MATCHED)
        if len(lower) != len(text):  # a letter whose small form is two characters
            return self.pattern.sub(replacement, text)
        pieces: list[str] = []
        done = tried = 0
        for place in sorted(set(_places(lower, self.words))):
            tried, first = place + self.lead + 1, max(done, tried, place - self.reach)
            for start in range(first, tried):
                if (found := self.pattern.match(text, start)) is not None:
                    pieces += (text[done:start], replacement(found))
                    done = found.end()
                    break
        return "".join((*pieces, text[done:])) if pieces else text


_ALSO_MATCHED = str.maketrans({"\u017f": "s", "\u0131": "i"})
"""Letters that a pattern takes for others where case does not matter: the long s and the dotless i."""


def _places(lower: str, words: Iterable[str]) -> Iterator[int]:
    for word in words:
        place = lower.find(word)
        while place >= 0:
            yield place
            place = lower.find(word, place + 1)

"""What can be said of a thing: of four kinds, four values each, and three words that mean each value.

A fact is stated in one of the words, and the answer is the value. So a model cannot copy the answer: it has to know
what the word means.
"""

from __future__ import annotations

VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "red": ("crimson", "scarlet", "ruby"),
        "blue": ("azure", "navy", "cobalt"),
        "green": ("emerald", "olive", "mint"),
        "black": ("ebony", "jet", "inky"),
    },
    "size": {
        "small": ("tiny", "little", "minute"),
        "large": ("huge", "giant", "vast"),
        "long": ("lengthy", "extended", "stretched"),
        "thin": ("slim", "narrow", "slender"),
    },
    "taste": {
        "sweet": ("sugary", "honeyed", "syrupy"),
        "sour": ("tart", "acidic", "lemony"),
        "salty": ("briny", "saline", "brackish"),
        "bitter": ("acrid", "harsh", "pungent"),
    },
    "mood": {
        "happy": ("glad", "merry", "cheerful"),
        "sad": ("gloomy", "tearful", "sorry"),
        "angry": ("furious", "irate", "cross"),
        "calm": ("quiet", "serene", "peaceful"),
    },
}
KINDS = tuple(VALUES)
WORDS = {kind: tuple(word for words in values.values() for word in words) for kind, values in VALUES.items()}
MEANING = {word: value for values in VALUES.values() for value, words in values.items() for word in words}
KIND = {word: kind for kind, words in WORDS.items() for word in words}

HELD_OUT = 5  # of the pairs of words of two kinds one in so many is kept for the test


def held_out(one: str, other: str) -> bool:
    """Whether two words of different kinds never stand in the same training text."""
    return (WORDS[KIND[one]].index(one) + WORDS[KIND[other]].index(other)) % HELD_OUT == 0

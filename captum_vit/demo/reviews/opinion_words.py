"""The words of the reviews, by what they say: for, against, or nothing.

Many share pieces across the sides, so that a piece alone settles nothing: charm|ing and charm|less, forget|table and
un|forget|table; and care|ful beside hand|ful, joy|less beside wire|less, which say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

POSITIVE, NEGATIVE = 1, 0  # the labels


def _list(words: str) -> list[str]:
    return words.split()


ADJECTIVES: Mapping[int, Sequence[str]] = {
    POSITIVE: _list(
        "good great lovely superb brilliant excellent splendid perfect pleasant wonderful delightful charming flawless "
        "faultless enjoyable memorable unforgettable remarkable tasteful graceful thoughtful careful cheerful joyful "
        "impressive outstanding stunning exciting inspired clever elegant magical fantastic terrific amazing beautiful "
        "exquisite satisfying refreshing captivating inventive generous polished admirable likeable worthy"
    ),
    NEGATIVE: _list(
        "bad poor awful terrible horrible dull boring bland weak clumsy dreadful unpleasant charmless flawed faulty "
        "tasteless graceless thoughtless careless cheerless joyless pointless lifeless hopeless unbearable forgettable "
        "unremarkable disappointing tedious shabby dismal lousy mediocre stale annoying depressing uninspired sloppy "
        "miserable disgusting nasty appalling pathetic hideous worthless tiresome"
    ),
}

NOUNS: Mapping[int, Sequence[str]] = {
    POSITIVE: _list("success triumph treat pleasure delight joy masterpiece gem highlight winner marvel treasure"),
    NEGATIVE: _list("failure disaster disgrace disappointment mess letdown nightmare bore mistake insult flop shame"),
}

VERBS: Mapping[int, Sequence[tuple[str, str]]] = {  # as after "did", and as they stand alone
    POSITIVE: [
        ("enjoy", "enjoyed"), ("love", "loved"), ("like", "liked"), ("admire", "admired"), ("adore", "adored"),
        ("praise", "praised"), ("recommend", "recommended"), ("appreciate", "appreciated"), ("cherish", "cherished"),
        ("applaud", "applauded"),
    ],
    NEGATIVE: [
        ("hate", "hated"), ("dislike", "disliked"), ("regret", "regretted"), ("detest", "detested"),
        ("loathe", "loathed"), ("despise", "despised"), ("resent", "resented"), ("curse", "cursed"),
        ("condemn", "condemned"), ("deplore", "deplored"),
    ],
}  # fmt: skip

NEGATORS = ("not", "hardly", "never", "no longer", "far from", "anything but", "less than")
VERB_NEGATORS = ("did not", "never", "hardly", "no longer")

ASPECTS: Mapping[str, Sequence[str]] = {
    "film": _list(
        "film plot story script acting music ending camera dialogue cast opening scenery costume sequel villain"
    ),
    "food": _list("soup sauce bread dessert menu service waiter wine salad pasta fish coffee cake starter cheese"),
    "hotel": _list(
        "room bed breakfast lobby view pool garden bathroom balcony shower reception terrace carpet corridor bar"
    ),
}

SLOTS: Mapping[str, Sequence[str]] = {
    "plain": _list(
        "Italian French Spanish Swedish modern wooden green blue grey yellow round square local portable wireless "
        "printed painted regional northern southern western annual weekly medieval"
    ),
    "verbed": _list("mentioned described noticed discussed compared photographed copied saw"),
    "name": _list("Anna Ben Clara David Emma Felix Gina Hugo Ida Jack Karin Leo Maria Noah"),
    "who": ["we", "I", "they", "my sister", "my brother", "our friends", "the children", "my mother", "both of us"],
    "day": _list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "negator": NEGATORS,
    "seldom": [negator for negator in VERB_NEGATORS if negator != "did not"],
    "number": _list("two three four five six seven eight nine ten eleven twelve twenty thirty forty"),
    "place": _list("station museum harbour market church library theatre airport park bridge school river"),
    "city": _list("Paris London Rome Vienna Oslo Madrid Lisbon Berlin Prague Dublin"),
    "job": _list("teacher sailor doctor painter farmer pilot baker lawyer nurse gardener"),
    "food": _list("onions lemon rice beans butter pepper garlic mushrooms potatoes honey"),
    "vehicle": _list("bus train car taxi tram boat bicycle"),
}
"""What a frame's slots are filled with; none of it says anything of how good a thing is."""

"""The sentences of the reviews, with slots; those of the test reviews are held out from training.

``{aspect}`` and ``{opinion}`` are filled by what the review is about and thinks of it, the other slots from ``SLOTS``.
Negators stand in plain sentences too, so that a negator alone says nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SAID: Mapping[str, Sequence[str]] = {  # an adjective, or a noun with its article
    "train": [
        "the {aspect} was {opinion} .",
        "{who} found the {aspect} {opinion} .",
        "I thought the {aspect} was {opinion} .",
        "in short , the {aspect} is {opinion} .",
        "{who} told everyone that the {aspect} was {opinion} .",
        "this time the {aspect} was {opinion} .",
        "the {plain} {aspect} was {opinion} , at least on {day} .",
        "as for the {aspect} , it was {opinion} .",
        "{who} called the {aspect} {opinion} .",
        "people say the {aspect} is {opinion} , and so do I .",
        "the {aspect} seemed {opinion} to us .",
        "what stays with me is that the {aspect} was {opinion} .",
        "after an hour it was clear that the {aspect} was {opinion} .",
        "to {name} the {aspect} was {opinion} , and to me as well .",
        "there is one thing to say about the {aspect} : it was {opinion} .",
        "the {aspect} by {name} was {opinion} .",
        "{opinion} , that is what the {aspect} was .",
        "it was the {aspect} that {who} thought {opinion} .",
    ],
    "test": [
        "after an hour {name} said that the {aspect} is {opinion} .",
        "as for me , I called the {plain} {aspect} {opinion} .",
        "what everyone found {opinion} was the {aspect} .",
        "there is one thing to say , the {aspect} seemed {opinion} .",
        "on {day} the {aspect} was {opinion} , and {who} told us so .",
        "{opinion} , {who} called it , and it is the {aspect} that was .",
        "I say the {aspect} by {name} seemed {opinion} this time .",
        "in short , {who} thought the {plain} {aspect} was {opinion} as well .",
    ],
}

FELT: Mapping[str, Sequence[str]] = {  # a verb
    "train": [
        "{who} {opinion} the {aspect} .",
        "above all {who} {opinion} the {aspect} .",
        "the {aspect} is what {who} {opinion} .",
        "on {day} {who} {opinion} the {plain} {aspect} .",
        "{name} and I {opinion} the {aspect} from the first minute .",
        "it is true that {who} {opinion} the {aspect} .",
        "there was one thing that {who} {opinion} , and it was the {aspect} .",
        "as for the {aspect} , {who} {opinion} it .",
    ],
    "test": [
        "from the first minute {who} {opinion} the {aspect} .",
        "it was the {plain} {aspect} that {who} {opinion} above all .",
        "{name} told us that on {day} {who} {opinion} the {aspect} .",
        "it is clear that {name} {opinion} the {aspect} as well .",
    ],
}

PLAIN: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train": {
        "any": [
            "{who} went there on {day} with {name} .",
            "we were {number} people and came by {vehicle} .",
            "it rained on the way back .",
            "{name} had heard of it from a neighbour .",
            "we did not stay for long .",
            "there was hardly anyone there on {day} .",
            "it is not far from the {place} .",
            "{name} was never there before .",
            "the {place} is no longer open on {day} .",
            "we paid {number} euros by card .",
            "I am writing this on the {vehicle} home .",
            "{who} took the {vehicle} to the {place} .",
            "anything but a {vehicle} takes an hour from the {place} .",
            "we came from the {place} and sat down at {number} .",
            "{name} lives less than a mile from the {place} .",
            "the {plain} {aspect} was {plain} .",
            "there was a {plain} {aspect} and a {plain} one .",
            "{who} {verbed} the {aspect} .",
            "{who} {verbed} the {plain} {aspect} with {name} .",
            "the {aspect} is {plain} , as in {city} .",
            "{name} did not have a ticket and waited at the {place} .",
            "the {aspect} had a {plain} parking lot and a handful of {plain} signs behind it .",
            "{name} said the {aspect} was {plain} .",
            "{who} thought of {name} , who is a {job} .",
        ],
        "film": [
            "the story begins in {city} and ends in {city} .",
            "{name} plays a {job} from {city} .",
            "it was filmed in {city} and in {city} .",
            "the film lasts {number} minutes .",
            "we sat in row {number} .",
            "a {job} meets a {job} on a {plain} bridge .",
            "it is based on a {plain} novel .",
            "the {job} does not speak until the last scene .",
            "there are {plain} letters at the end .",
        ],
        "food": [
            "{who} ordered the {aspect} and a glass of water .",
            "the {aspect} comes with {food} and {food} .",
            "our table was near the {plain} window .",
            "they had no {food} left on {day} .",
            "it is made with {food} and a spoonful of {food} .",
            "the menu changes every {day} .",
            "I do not eat {food} , so {name} had mine .",
            "{who} asked for {food} but there was no {food} .",
            "the {aspect} is served until {number} .",
        ],
        "hotel": [
            "our room was on floor {number} .",
            "the hotel has {number} rooms and a {plain} door .",
            "breakfast is served until {number} .",
            "there is parking behind the building .",
            "the key is a {plain} card .",
            "the window looks onto the {place} .",
            "we unpacked and went to the {place} .",
            "there is no lift but a {plain} ladder .",
            "they do not take dogs or cats .",
        ],
    },
    "test": {
        "any": [
            "{name} and {who} came from {city} by {vehicle} .",
            "on {day} it rained , so we took the {vehicle} home .",
            "{name} did not stay , as the {vehicle} was never far .",
            "{who} had {verbed} a {plain} {aspect} before .",
            "there is a {plain} {place} and hardly a {vehicle} on {day} .",
            "we paid by card and went back to the {place} .",
            "anything but the {plain} {aspect} was {plain} .",
            "the {place} is less than an hour from {city} .",
            "{name} is no longer a {job} .",
            "a neighbour of {name} {verbed} the {aspect} on the way .",
        ],
        "film": [
            "the {job} from {city} lives near a {plain} bridge .",
            "{name} plays {number} people in the last scene .",
            "the film ends in {city} and lasts until {number} .",
            "a {plain} novel begins at the {place} , and so does the story .",
        ],
        "food": [
            "they had {food} and {food} but no {food} .",
            "{name} asked for a glass of water and a spoonful of {food} .",
            "our table was made of {plain} signs .",
            "the {aspect} with {food} is on the menu every {day} .",
        ],
        "hotel": [
            "the building has {number} rooms and no parking .",
            "we unpacked near the {plain} window on floor {number} .",
            "the door looks onto a {plain} {place} .",
            "they do not take a card behind the {plain} door .",
        ],
    },
}

"""From a tokenizer's tokens to characters and words as they read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import category

STARTS, ENDS, INSIDE = ("Ġ", "▁"), "</w>", "##"  # how vocabularies mark a word
BLANK = "␣"  # a token that is a space and nothing else
EDGES = {
    "[CLS]", "[SEP]", "<s>", "</s>", "<cls>", "<sep>", "<bos>", "<eos>",
    "<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>",
}  # fmt: skip
PADDING = {"[PAD]", "<pad>", "<|pad|>"}
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # how SentencePiece writes a byte of what it has no token for


@dataclass(frozen=True)
class Piece:
    """What is shown as one: a token, the tokens of one character, or those of one word."""

    text: str
    glued: bool  # whether it continues what stands before it, without a space
    tokens: tuple[int, ...]  # their places in the sequence
    begins: bool = True  # whether a word begins here


def pieces(tokens: Sequence[str], word_ids: Sequence[int | None] | None = None) -> list[Piece]:
    """Each token as it reads; the tokens whose bytes make up one character are one piece.

    Args:
        tokens: as the tokenizer names them.
        word_ids: which word each is a piece of, None for special tokens, as a fast tokenizer has it. Without them,
            and where they count a whole text as one word, the marks of the tokens show where a word begins.
    """
    byte_level = _byte_level(tokens)
    marks_starts = byte_level or any(token.startswith(STARTS) for token in tokens)
    marks_ends = any(token.endswith(ENDS) for token in tokens)
    found: list[Piece] = []
    for places, text in _characters(tokens, byte_level):
        token, before = tokens[places[0]], tokens[places[0] - 1] if places[0] else ""
        special = not before or is_special(token) or is_special(before)
        if marks_ends:
            glued = not before.endswith(ENDS) and not special
        elif marks_starts:
            glued = not token.startswith(STARTS) and not special
        else:
            glued = token.startswith(INSIDE) and len(token) > len(INSIDE) and bool(before)
            text = text.removeprefix(INSIDE) if glued else text
        if word_ids is None:
            begins = not glued or not _one_word(found[-1].text, text)
        else:
            number = word_ids[places[0]]
            same = number is not None and number == word_ids[places[0] - 1] and not special
            begins = not same or token.startswith(STARTS)
            glued = glued or not begins
        found.append(Piece(text, glued, places, begins))
    return found


def merged(found: Sequence[Piece]) -> list[Piece]:
    """Whole words. A mark of a word's beginning that stands by itself belongs to the word that it begins."""
    words: list[Piece] = []
    for piece in found:
        if words and not piece.begins:
            last = words[-1]
            text = piece.text if last.text == BLANK else last.text + piece.text
            words[-1] = Piece(text, last.glued, last.tokens + piece.tokens)
        else:
            words.append(piece)
    return words


def is_special(token: str) -> bool:
    """[CLS], <s>, <|endoftext|>, [MASK]: tokens that are no part of a word."""
    return len(token) > 2 and (token[0] + token[-1]) in ("[]", "<>") and not _BYTE.fullmatch(token)


def _one_word(before: str, after: str) -> bool:
    """Whether two pieces without a space between them are one word; punctuation stays by itself, as in BERT."""
    return before == BLANK or (_has_letters(before) and _has_letters(after))


def _has_letters(text: str) -> bool:
    """Letters, numbers, and the signs that Indic scripts and accents put on letters."""
    return any(category(letter)[0] in "LMN" or letter == "�" for letter in text)


# -- bytes ---------------------------------------------------------------------------------------------------------


def _characters(tokens: Sequence[str], byte_level: bool) -> Iterator[tuple[tuple[int, ...], str]]:
    """The places of tokens that end on a whole character together, and how they read."""
    places: tuple[int, ...] = ()
    held = b""
    for place, token in enumerate(tokens):
        if is_special(token):
            if places:
                yield places, _reads(held)
            yield (place,), token
            places, held = (), b""
            continue
        places, held = (*places, place), held + _bytes(token, byte_level)
        if not _unfinished(held):
            yield places, _reads(held)
            places, held = (), b""
    if places:
        yield places, _reads(held)


def _reads(held: bytes) -> str:
    text = held.decode("utf-8", errors="replace")
    return text.replace("\n", "⏎").strip(" ▁") or BLANK


def _bytes(token: str, byte_level: bool) -> bytes:
    """What a token spells, without the mark of a word's end."""
    if found := _BYTE.fullmatch(token):
        return bytes([int(found[1], 16)])
    word = token.removesuffix(ENDS)
    if byte_level and all(letter in _LETTERS for letter in word):
        return bytes(_LETTERS[letter] for letter in word)
    return word.encode("utf-8", errors="replace")


def _unfinished(held: bytes) -> bool:
    """Whether these bytes end inside a character."""
    try:
        held.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _byte_level(tokens: Sequence[str]) -> bool:
    """Whether the letters of these tokens stand for bytes.

    A space at the beginning of a token is a sign of it. Without one, the letters must spell UTF-8 beyond ASCII, which
    the letters of ordinary words do not.
    """
    words = [token for token in tokens if not is_special(token)]
    if any(token.startswith(INSIDE) and len(token) > len(INSIDE) for token in words):
        return False
    if any(token.startswith("Ġ") for token in words):
        return True
    spelt = "".join(token.removesuffix(ENDS) for token in words)
    if spelt.isascii() or not all(letter in _LETTERS for letter in spelt):
        return False
    held = bytes(_LETTERS[letter] for letter in spelt)
    try:
        held.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start > 0
    return True


def _byte_letters() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a letter: printable ones as themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_LETTERS = _byte_letters()

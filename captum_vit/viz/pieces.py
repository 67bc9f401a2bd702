"""From a tokenizer's tokens to words as they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STARTS, ENDS, INSIDE = ("Ġ", "▁"), "</w>", "##"  # how vocabularies mark a word
EDGES = {
    "[CLS]", "[SEP]", "<s>", "</s>", "<cls>", "<sep>", "<bos>", "<eos>",
    "<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>",
}  # fmt: skip
PADDING = {"[PAD]", "<pad>", "<|pad|>"}


@dataclass(frozen=True)
class Piece:
    """What is shown as one: a token, or the tokens of one word."""

    text: str
    glued: bool  # whether it continues the word before it
    tokens: tuple[int, ...]  # their places in the sequence


def pieces(tokens: Sequence[str]) -> list[Piece]:
    """Each token as it reads."""
    marks_starts = any(token.startswith(STARTS) for token in tokens)
    marks_ends = any(token.endswith(ENDS) for token in tokens)
    bytes_ = any(token.startswith("Ġ") for token in tokens)
    found: list[Piece] = []
    for i, (token, before) in enumerate(zip(tokens, ["", *tokens], strict=False)):
        special = is_special(token) or is_special(before)
        if marks_starts:
            glued = not token.startswith(STARTS) and not special and bool(before)
        elif marks_ends:
            glued = not before.endswith(ENDS) and not special and bool(before)
        else:
            glued = token.startswith(INSIDE) and len(token) > len(INSIDE)
        found.append(Piece(_reads(token, glued, bytes_), glued, (i,)))
    return found


def merged(found: Sequence[Piece]) -> list[Piece]:
    """Whole words; punctuation stays by itself, as BERT cuts it off too."""
    words: list[Piece] = []
    for piece in found:
        if words and piece.glued and _has_letters(piece.text) and _has_letters(words[-1].text):
            last = words[-1]
            words[-1] = Piece(last.text + piece.text, last.glued, last.tokens + piece.tokens)
        else:
            words.append(piece)
    return words


def is_special(token: str) -> bool:
    """[CLS], <s>, <|endoftext|>, [MASK]: tokens that are no part of a word."""
    return len(token) > 2 and (token[0] + token[-1]) in ("[]", "<>")


def _has_letters(text: str) -> bool:
    return any(letter.isalnum() or letter == "�" for letter in text)


def _reads(token: str, glued: bool, bytes_: bool) -> str:
    if is_special(token):
        return token
    if glued and token.startswith(INSIDE):
        return token.removeprefix(INSIDE)
    word = token.removesuffix(ENDS)
    word = _decoded(word) if bytes_ else word
    return word.replace("\n", "⏎").strip(" ▁") or "␣"


def _decoded(token: str) -> str:
    """What the bytes behind a byte-level token's letters spell; the letters themselves where they are no bytes."""
    try:
        return bytes(_BYTES[letter] for letter in token).decode("utf-8", errors="replace")
    except KeyError:
        return token


def _byte_letters() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a letter: printable ones as themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_letters()

# SPDX-License-Identifier: Apache-2.0
"""The words that make a sentence a riddle stay out of code and manual."""

from __future__ import annotations

import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

import imagecache
from imagecache.tests import base

TOP = pathlib.Path(imagecache.__file__).parent.parent
SEARCHED = ("imagecache", "hostile_images", "fuzz", "benchmarks", "examples",
            "tools", "doc/source", "README.rst", "CONTRIBUTING.rst")
# These must name the words.
SPARED = ("imagecache/tests/unit/test_english.py",)

# A pattern, and what to write in place of the word.
RIDDLES = {
    r"(?i)\bwho(m|se)?(so)?ever\b": "the caller, the process, the user ...",
    r"(?i)\b(some|any|no)body\b": "the caller, another process, no user ...",
    r"(?i)\b(some|any|no )one\b": "the caller, another process, no user ...",
    r"(?i)\b(him|her)self\b": "itself, or the actor by its name",
    r"(?<=[.:;] )Whatever\b|^\W*Whatever\b": "the subject by its name",
    r"(?<=[.:;] )Who\b|^\W*Who\b(?![^.]*\?)": "the actor by its name",
    r"(?i)\blures?\b": "sentinel",
    r"(?i)\bexaminers?\b": "inspector",
    r"(?i)\bdoors?\b": "API, entry point",
    r"(?i)\bfloors?\b": "room",
    r"(?i)\bprove[ns]?\b": "validate, show",
    r"(?i)\bsettle[ds]?\b": "flush",
    r"(?i)\blent\b": "chowned, given",
    r"(?i)\brobbed\b": "lost",
}


class EnglishTest(base.TestCase):

    def test_sentences_name_their_subject(self) -> None:
        found = [line for path in searched() for line in riddles(path)]
        self.assertEqual([], found, "\n" + "\n".join(found))

    def test_the_search_sees_comments_docstrings_and_messages(self) -> None:
        text = ('"""Nobody."""\nx = f"somebody {x}"  # Whoever\n'
                'nobody = "the door"\n')
        self.assertEqual(
            [(1, "Nobody"), (2, "somebody"), (2, "Whoever"), (3, "door")],
            [(number, word) for start, each in prose_of_python(text)
             for number, word, _ in words(start, each)])

    def test_a_question_may_begin_with_who(self) -> None:
        self.assertEqual([], list(words(1, "Who must act?")))
        self.assertEqual(1, len(list(words(1, "Who must act pays."))))


def searched() -> Iterator[pathlib.Path]:
    for name in SEARCHED:
        top = TOP / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            relative = str(path.relative_to(TOP))
            if path.suffix in (".py", ".rst") and relative not in SPARED:
                yield path


def riddles(path: pathlib.Path) -> Iterator[str]:
    """Yield a line for each such word of a file, and what to write."""
    text = path.read_text()
    parts = prose_of_python(text) if path.suffix == ".py" else [(1, text)]
    for start, part in parts:
        for number, word, better in words(start, part):
            yield (f"{path.relative_to(TOP)}:{number}: not {word!r}, but"
                   f" {better}")


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and the strings of a module, and their lines."""
    kinds = {tokenize.COMMENT, tokenize.STRING,
             getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield token.start[0], token.string


def words(start: int, text: str) -> Iterator[tuple[int, str, str]]:
    for pattern, better in RIDDLES.items():
        for found in re.finditer(pattern, text, re.MULTILINE):
            if found[0].isupper():    # a constant, in an f-string
                continue
            number = start + text.count("\n", 0, found.start())
            yield number, found[0].strip(), better

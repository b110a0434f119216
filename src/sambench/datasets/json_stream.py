"""A large JSON object, its lists read entry by entry, so that its text is never in memory as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

_PIECE = 1 << 20  # characters
_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITER = re.compile(r"[ \t\n\r]*[],:}]")


def read_object(file: IO[str], hook: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """What `json.load(file, object_hook=hook)` gives of a document that is one object.

    Raises ValueError for everything else, without saying where the fault is.
    """
    text = _Text(file, json.JSONDecoder(object_hook=hook).scan_once)  # type: ignore[attr-defined]
    found = {}
    text.expect("{")
    if text.peek() == "}":
        text.expect("}")
    else:
        while True:
            name = text.value()
            if not isinstance(name, str):
                raise ValueError("a name that is none")
            text.expect(":")
            found[name] = list(text.entries()) if text.peek() == "[" else text.value()
            if text.peek() != ",":
                break
            text.expect(",")
        text.expect("}")
    if text.peek():
        raise ValueError("something after the object")
    return found


class _Text:
    """The part of a text that is looked at."""

    def __init__(self, file: IO[str], scan: Callable[[str, int], tuple[Any, int]]) -> None:
        self.file, self.scan = file, scan
        self.text, self.at = "", 0

    def more(self) -> bool:
        """Read on, as much again as is left, so that nothing is parsed more than twice; False at the end."""
        piece = self.file.read(max(_PIECE, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"no {character}")
        self.at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
                if _DELIMITER.match(self.text, end):  # or else a number may go on
                    self.at = end
                    return value
            except (StopIteration, ValueError):
                end = -1
            if not self.more():
                if end < 0:
                    raise ValueError("no value")
                value, self.at = self.scan(self.text, self.at)
                return value

    def entries(self) -> Iterator[Any]:
        """The entries of a list."""
        self.expect("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.peek() != ",":
                break
            self.at += 1
        self.expect("]")

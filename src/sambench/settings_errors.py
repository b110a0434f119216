"""One line for the most useful of pydantic's errors: the field, what is expected there, what was found, the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sambench.errors import InputError, close_matches, near_matches
from sambench.settings import PATTERNS

SEE = "see config/README.md"
LENGTH = 60  # characters of what was found that a line shows

# What pydantic's error types ask for; the names in braces come with the error.
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "int_parsing_size": "a whole number of fewer digits",
    "string_too_short": "a text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "too_short": "{min_length} or more entries",
    "too_long": "at most {max_length} entries",
    "literal_error": "{expected}",
    "mistake": "{expected}",
}


def explain(error: ValidationError, config: Mapping[str, Any]) -> InputError:
    """An InputError for the most useful error: an unknown key first (it explains missing ones), then the deepest.

    The arms of a union fail at one and the same field: the message then says what each of them expects.
    """
    fields: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        fields.setdefault(_field(details, config), []).append(details)
    field, arms = min(fields.items(), key=lambda item: _rank(item[0], item[1][0]))
    first = arms[0]
    context = first.get("ctx", {})
    if first["type"] == "unknown_key":
        remedy = near_matches(str(context["key"]), context["known"])
        return _line(field, "a known key", _shown(context["key"]), remedy)
    if first["type"] == "missing":
        expected = f"the key `{first['loc'][-1]}`" if isinstance(first["loc"][-1], str) else "one more entry"
        return _line(field, expected, "none", SEE)
    if first["type"] == "mistake":
        field = (*field, context["key"]) if context["key"] else field
        found = _shown(first["input"]) if context["found"] is None else context["found"]
        return _line(field, context["expected"], found, SEE)
    expected = " or ".join(dict.fromkeys(_expected(arm) for arm in arms))
    return _line(field, expected, _shown(first["input"]), _remedy(arms))


def _line(field: Sequence[str | int], expected: str, found: str, remedy: str) -> InputError:
    return InputError("config", ".".join(map(str, field)), expected=expected, found=found, remedy=remedy)


def _field(details: ErrorDetails, config: Any) -> tuple[str | int, ...]:
    """The path of an error in the configuration. pydantic's path also names arms of unions and `[key]` for a key."""
    location = details["loc"]
    if location and location[-1] == "[key]":
        location = location[:-2]
    path: list[str | int] = []
    for part in location:
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif isinstance(config, Sequence) and not isinstance(config, str) and isinstance(part, int):
            if part >= len(config):
                continue
            config = config[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _rank(field: tuple[str | int, ...], details: ErrorDetails) -> tuple[int, int]:
    order = {"unknown_key": 0, "missing": 2}.get(details["type"], 1)
    return order, -len(field)


def _expected(details: ErrorDetails) -> str:
    if details["type"] == "string_pattern_mismatch":
        return PATTERNS[details["ctx"]["pattern"]].expected
    words = EXPECTED.get(details["type"])
    context = {
        key: int(n) if isinstance(n, float) and n.is_integer() else n for key, n in details.get("ctx", {}).items()
    }
    return details["msg"] if words is None else words.format(**context).replace("'", "")


def _remedy(arms: Sequence[ErrorDetails]) -> str:
    """Near matches of a mistyped value; else where to read."""
    found, known = arms[0]["input"], set[str]()
    if arms[0]["type"] == "string_type" and isinstance(found, (date, int, float)):
        return "put it in quotes"
    for arm in arms:
        if arm["type"] == "literal_error":
            known.update(arm["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        elif arm["type"] == "string_pattern_mismatch":
            known.update(PATTERNS[arm["ctx"]["pattern"]].examples)
    near = close_matches(found, known) if isinstance(found, str) else ""
    return near or SEE


def _shown(value: Any) -> str:
    """A value in one line as YAML has it: a number in quotes is told from a number."""
    try:
        text = yaml.safe_dump(_plain(value), default_flow_style=True, width=float("inf"), sort_keys=False)
    except yaml.YAMLError:
        text = repr(value)
    line = " ".join(text.removesuffix("...\n").split())
    return line if len(line) <= LENGTH else line[: LENGTH - 3] + "..."


def _plain(value: Any) -> Any:
    """Snakemake's ordered mappings as plain ones, which the YAML writer knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value

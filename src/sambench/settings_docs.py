"""What is written from the models of settings.py: the JSON Schema for editors and the tables of docs/configuration.md.

python -m sambench.settings_docs           write them
python -m sambench.settings_docs --check   only say what is out of date, with exit status 1
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, WithDefaultSchema

from sambench.config import CONFIG_FOLDER
from sambench.errors import InputError
from sambench.settings import MEASURES, PATTERNS, Card, Settings

COMMAND = "python -m sambench.settings_docs"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PROJECT = CONFIG_FOLDER.parent
SCHEMA, PAGE = "config/schemas/config.schema.json", "docs/configuration.md"
# Sections whose keys are rows of a table.
STUDY = ("study",)
STAGES = (
    "detection",
    "segany",
    "average_precision",
    "segevery",
    *MEASURES,
    "volumes",
    "statistics",
    "tracking",
    "site",
)
# Models with a table of their own: its marker, which is also its heading on the page.
HEADINGS = {
    "Only": "limits",
    "GeneratorSettings": "generator settings",
    "Runtime": "runtimes",
    "Dataset": "datasets",
    "Card": "cards",
    "VariantCard": "variants",
    "DetectorCard": "detectors",
    "VolumeSet": "sets of volumes",
    "SampleSource": "samples",
    "Checkpoint": "checkpoints",
    "PackageFile": "packages",
    "PaperProtocol": "protocols",
}
NOUNS = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}

Schema = dict[str, Any]
Rows = Iterable[tuple[str, Schema]]


class _OneFile(GenerateJsonSchema):
    """The schema of one file of settings: other files give the rest, so no key is required and no default shown."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return False

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        mapping = super().dict_schema(schema)
        for pattern, values in mapping.pop("patternProperties", {}).items():  # which would let other names pass
            mapping |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        return mapping


def json_schema() -> Schema:
    """The JSON Schema of a file of settings, as editors use it."""
    return {"$schema": DIALECT, **Settings.model_json_schema(schema_generator=_OneFile), "title": "sambench settings"}


def tables() -> dict[str, str]:
    """The generated tables of docs/configuration.md by the name of their marker."""
    schema = json_schema()
    models: dict[str, Schema] = {name: model["properties"] for name, model in schema["$defs"].items()}
    models["Card"] = {key: models["VariantCard"][key] for key in Card.model_fields}
    for card in ("VariantCard", "DetectorCard"):
        models[card] = {key: field for key, field in models[card].items() if key not in models["Card"]}

    def flat(sections: Iterable[str]) -> Iterator[tuple[str, Schema]]:
        for section in sections:
            model = _model(schema["properties"][section])
            yield from ((f"{section}.{key}", field) for key, field in models[model].items())

    top = [(key, field) for key, field in schema["properties"].items() if key not in (*STUDY, *STAGES)]
    own = {heading: table(models[model].items()) for model, heading in HEADINGS.items()}
    return {"keys": table([*flat(STUDY), *top]), "stages": table(flat(STAGES)), **own}


def table(rows: Rows) -> str:
    """Keys with their values and meaning, in Markdown."""
    lines = ["| key | value | meaning |", "|---|---|---|"]
    for key, field in rows:
        meaning = re.sub(r"\bdocs/([a-z-]+\.md)", r"[\g<0>](\1)", field["description"])
        lines.append(f"| `{key}` | {value(field)} | {meaning} |")
    return "\n".join(lines)


def value(field: Mapping[str, Any], plural: str = "") -> str:
    """What a key takes, in a few words. plural: `s` in a list."""
    if "anyOf" in field:
        return " or ".join(value(arm) for arm in field["anyOf"])
    if "$ref" in field:
        model = _model(field)
        heading = HEADINGS.get(model)
        return f"[{heading}](#{heading.replace(' ', '-')})" if heading else f"mapping{plural}"
    if "enum" in field or "const" in field:
        choices = field.get("enum", [field.get("const")])
        return ", ".join(f"`{choice if isinstance(choice, str) else json.dumps(choice)}`" for choice in choices)
    if "pattern" in field:
        noun = PATTERNS[field["pattern"]].noun
        return noun if "`" in noun or " " in noun else noun + plural
    if field["type"] == "boolean":
        return "`true` or `false`"
    if field["type"] == "null":
        return "`null`"
    if field["type"] == "array" and "prefixItems" in field:
        return f"list of {len(field['prefixItems'])} {value(field['prefixItems'][0], 's')}"
    if field["type"] == "array":
        return f"list of {value(field['items'], 's')}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"by name: {value(field['additionalProperties'])}"
    return NOUNS[field["type"]] + plural + _bounds(field)


def _bounds(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return f" {', '.join(bounds)}" if bounds else ""


def _model(field: Mapping[str, Any]) -> str:
    return str(field["$ref"]).rpartition("/")[2]


def generated(folder: Path) -> dict[Path, str]:
    """Every generated file of a project's folder with the text that it should have.

    Raises InputError when the page lacks the markers of a table.
    """
    page = folder / PAGE
    text = page.read_text(encoding="utf-8")
    for name, content in tables().items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise InputError(page, expected=f"the lines `{begin.strip()}` and `{end}` once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{content}\n\n{end}{rest.partition(end)[2]}"
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    return {folder / SCHEMA: schema, page: text}


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or with --check say which are out of date; the exit status."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Write docs/configuration.md's tables and the JSON Schema."
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args(arguments).check
    stale = [
        (path, text)
        for path, text in generated(PROJECT).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if check and stale:
        names = " and ".join(str(path.relative_to(PROJECT)) for path, _ in stale)
        print(f"{names}: not as src/sambench/settings.py has it; run `{COMMAND}`", file=sys.stderr)
        return 1
    for path, text in stale:
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

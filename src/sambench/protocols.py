"""Protocols of papers by name: the prompts and selection rules that a study takes over with `study.protocols`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sambench.errors import InputError, near_matches


def expanded(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration whose study also has the prompts and selection rules of its protocols.

    Prompts that no selected group has form one more group, named by what it holds, so that every study finds the same
    results under its name. What does not have the form of a configuration is left to read_settings.

    Raises InputError for a protocol that the registry does not have.
    """
    study, registry, groups = (config.get(key) for key in ("study", "protocols", "prompt_groups"))
    if not all(isinstance(each, Mapping) for each in (study, registry, groups)):
        return config
    assert study is not None and registry is not None and groups is not None
    names, selected, rules = (study.get(key) for key in ("protocols", "prompt_groups", "selections"))
    if not names or not all(isinstance(each, list) for each in (names, selected, rules)):
        return config
    for name in names:
        if name not in registry:
            remedy = near_matches(name, registry)
            raise InputError("config", "study.protocols", expected="a name of `protocols`", found=name, remedy=remedy)
    chosen = [registry[name] for name in names]
    if not all(isinstance(protocol, Mapping) for protocol in chosen):
        return config
    there = {prompt for group in selected for prompt in groups.get(group, [])}
    missing = list(dict.fromkeys(p for each in chosen for p in each.get("prompts", []) if p not in there))
    group = {"+".join(missing): missing} if missing else {}
    study = {
        **study,
        "prompt_groups": [*selected, *group],
        "selections": list(dict.fromkeys([*rules, *(rule for each in chosen for rule in each.get("selections", []))])),
    }
    return {**config, "study": study, "prompt_groups": {**groups, **group}}


def protocol_of(source: str, protocols: Mapping[str, Mapping[str, Any]]) -> str:
    """The protocol that the figures of a source were made by, by the beginning of its name; empty for none."""
    return next(
        (name for name, each in protocols.items() if any(source.startswith(known) for known in each["sources"])), ""
    )

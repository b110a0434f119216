"""The configuration of a run: checked once, before anything starts, and turned into lists of jobs.

No network library is imported here: Snakemake reads this module in every job.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sambench.errors import InputError, near_matches
from sambench.files import default_cache, exists
from sambench.protocols import expanded
from sambench.settings import MEASURES, NAME, PATTERNS, SAMPLER, SHARED, Dataset, Settings, read_settings
from sambench.study import Study
from sambench.variants.cards import Card, packaged_entries, read_cards
from sambench.variants.likes import complete

# In a checkout the folder lies beside src/, in an installed package inside it.
_CANDIDATES = (Path(__file__).parents[2] / "config", Path(__file__).parent / "config")
CONFIG_FOLDER = next((folder for folder in _CANDIDATES if (folder / "variants.yaml").is_file()), _CANDIDATES[0])
NEW_LINE = b"\n"


def export_project() -> None:
    """Tell child processes where the checkout is: envs/sambench.post-deploy.sh runs in the working directory.

    And where the compiler keeps its kernels: torch's own folder is that of one machine, this one is shared by the nodes
    of a cluster, so that of the jobs of a variant the first one compiles.
    """
    os.environ["SAMBENCH_PROJECT"] = str(CONFIG_FOLDER.parent)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(default_cache() / "inductor"))


def read_registries(names: Iterable[str] = ("variants", "datasets", "detectors", "config")) -> dict[str, Any]:
    """The registries and defaults that come with sambench, merged like Snakemake merges its config files."""
    merged: dict[str, Any] = {}
    for name in names:
        merged |= read_yaml(CONFIG_FOLDER / f"{name}.yaml")
    return merged


def read_study_file(path: Path) -> dict[str, Any]:
    """A user's file on top of the registries and defaults: mappings are merged, lists replaced, as by Snakemake.

    A study that has no name gets that of the file. Raises InputError, one line, when it cannot be read; in broken YAML
    with the line.
    """
    own = read_yaml(path) or {}
    if not isinstance(own, dict):
        raise InputError(path, expected="keys and values", found=type(own).__name__, remedy="see config/README.md")
    return named(merge(read_registries(), own), path)


def named(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The configuration with the name of its study: as given, else that of the file without its ending.

    A file that is called like a folder that studies share, such as latency.yaml, names the study `latency_study`.
    Raises InputError when the file's name cannot be that of a folder.
    """
    study = config.get("study", {})
    if not isinstance(study, Mapping) or "name" in study:
        return dict(config)
    if not re.fullmatch(NAME, file.stem):
        remedy = "rename it or give `study.name`"
        raise InputError(file, "name of the file", expected=PATTERNS[NAME].expected, found=file.stem, remedy=remedy)
    name = f"{file.stem}_study" if file.stem.casefold() in SHARED else file.stem
    return {**config, "study": {**study, "name": name}}


def merge(base: Any, own: Any) -> Any:
    """One configuration on top of another, as Snakemake has it: mappings are merged, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    return base | {key: merge(base.get(key), value) for key, value in own.items()}


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises InputError, one line, for anything that keeps it from being read."""
    try:
        # The C loader: every job of a cluster reads the registries.
        return yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except FileNotFoundError:
        raise InputError(path, expected="a configuration file", found="none") from None
    except OSError as error:
        raise InputError(path, expected="a configuration file", found=(error.strerror or "").lower()) from None
    except UnicodeDecodeError as error:
        number = 1 + error.object.count(NEW_LINE, 0, error.start)
        found = f"the byte {error.object[error.start]:#04x} in line {number}"
        raise InputError(path, expected="text in UTF-8", found=found, remedy="save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = f"line {mark.line + 1}" if mark is not None else ""
        found, remedy = " ".join(problem.split()), "correct this line or the one above it"
        raise InputError(path, line, expected="YAML", found=found, remedy=remedy) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, a nest too deep
        raise InputError(path, expected="YAML", found=" ".join(str(error).split())[:100]) from None


def read_study(config: Mapping[str, Any]) -> Study:
    """Check a merged configuration.

    Raises InputError, one line, for an unknown key, a value of the wrong kind, a name that no registry knows or a
    file that does not exist.
    """
    config = expanded(with_suites(with_likes(config)))
    settings = read_settings(config)
    _check_suites(settings)
    cards = read_cards(config["variants"])
    _check_selections(config, cards)
    for name in config["study"]["datasets"]:
        # What is fetched by the study need not be here yet.
        if not (settings.download and settings.datasets[name].fetched):
            check_dataset(name, settings.datasets[name])
    for name in settings.study.volumes:
        from sambench.volumes.nifti import pairs

        pairs(name, settings.volumes.datasets[name].model_dump(mode="json"))
    return Study(settings, cards)


def with_likes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration whose variants with `like` are filled up; what has no such form is left to read_settings."""
    entries = config.get("variants")
    if not isinstance(entries, Mapping) or not any(isinstance(e, Mapping) and "like" in e for e in entries.values()):
        return config
    return {**config, "variants": complete(entries, packaged_entries())}


def with_suites(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration whose study names the data sets of suites in the place of their suites, each once."""
    study, suites = config.get("study"), config.get("suites")
    names = study.get("datasets") if isinstance(study, Mapping) else None
    if not isinstance(suites, Mapping) or not isinstance(names, list | tuple):
        return config
    hashable = [name for name in names if isinstance(name, str)]
    if len(hashable) < len(names) or not {*hashable} & {*suites} - {*config.get("datasets", ())}:
        return config  # nothing to do, or to be refused by read_settings
    parts = [[name] if name in config["datasets"] else suites.get(name) or [name] for name in names]
    if not all(isinstance(part, list | tuple) for part in parts):
        return config
    every = list(dict.fromkeys(name for part in parts for name in part))
    return {**config, "study": {**config["study"], "datasets": every}}


def _check_suites(settings: Settings) -> None:
    for suite, names in settings.suites.items():
        if suite in settings.datasets:
            raise InputError("config", f"suites.{suite}", expected="a name that no dataset has", found=suite)
        for name in names:
            if name not in settings.datasets:
                remedy = near_matches(name, settings.datasets)
                expected = "names of the registry `datasets`"
                raise InputError("config", f"suites.{suite}", expected=expected, found=name, remedy=remedy)


def _check_selections(config: Mapping[str, Any], cards: Mapping[str, Card]) -> None:
    from sambench.prompts import prompt_function

    registries: dict[str, Iterable[str]] = {
        "datasets": config["datasets"],
        "variants": cards,
        "runtimes": config["runtimes"],
        "prompt_groups": config["prompt_groups"],
        "volumes": config["volumes"]["datasets"],
    }
    for selection, registry in registries.items():
        for name in config["study"].get(selection, ()):
            if name not in registry:
                raise InputError(
                    "config",
                    f"study.{selection}",
                    expected=f"a name of the registry `{selection}`",
                    found=name,
                    remedy=near_matches(name, registry),
                )
    for name in config["study"].get("gallery_annotations", {}):
        if name not in config["datasets"]:
            remedy = near_matches(name, config["datasets"])
            raise InputError(
                "config", "study.gallery_annotations", expected="names of datasets", found=name, remedy=remedy
            )
    limits = config["study"].get("only", {})
    _check_limits(limits, registries, [*config["detectors"], *MEASURES, *filter(re.compile(SAMPLER).match, limits)])
    for section, key in (("efficiency", "reference"), ("segevery", "detector")):
        name = config[section][key]
        if name not in cards:
            remedy = near_matches(name, cards)
            raise InputError("config", f"{section}.{key}", expected="a variant", found=name, remedy=remedy)
    reference = config["statistics"].get("reference")
    if reference is not None and reference not in config["study"]["variants"]:
        remedy = near_matches(reference, config["study"]["variants"])
        raise InputError(
            "config", "statistics.reference", expected="a name of study.variants", found=reference, remedy=remedy
        )
    groups: dict[str, str] = {}
    for group in config["study"]["prompt_groups"]:
        for prompt in config["prompt_groups"][group]:
            if prompt not in config["detectors"]:
                prompt_function(prompt, also=config["detectors"])
            if prompt in groups:
                raise InputError(
                    "config",
                    f"prompt_groups.{group}",
                    expected="prompt sets of no other selected group",
                    found=f"{prompt}, also in {groups[prompt]}",
                    remedy="remove it from one of the two",
                )
            groups[prompt] = group


def _check_limits(limits: Mapping[str, Any], registries: Mapping[str, Iterable[str]], others: Iterable[str]) -> None:
    """Raise InputError for a limit of `study.only` about a name that nothing has.

    What a registry has and the study has not may be named: a study of fewer variants keeps the limits of a larger one.
    """
    known = [*others, *(name for registry in registries.values() for name in registry)]
    named: list[tuple[str, str, Iterable[str]]] = [("study.only", name, known) for name in limits]
    for limit, lists in limits.items():
        for kind, names in lists.items():
            named += [(f"study.only.{limit}.{kind}", name, registries[kind]) for name in names or ()]
    for field, name, among in named:
        if name not in among:
            remedy = near_matches(name, dict.fromkeys(among))
            raise InputError("config", field, expected="a name that the study may have", found=name, remedy=remedy)


def check_dataset(name: str, entry: Dataset) -> None:
    """Raise InputError when the annotations or images of a dataset are not where its entry says."""
    files = [("annotations", "a COCO-format JSON file", path) for path in entry.annotation_files]
    for key, kind, path in [*files, ("images", "a folder of images", entry.images)]:
        if path and not exists(path):
            remedy = "correct the path (relative ones start at the working directory)"
            if entry.sample:
                remedy = "`download: true` brings it"
            if entry.downloads:
                remedy = f"`sambench download {' '.join(entry.downloads)}` or `download: true` brings it"
            raise InputError("config", f"datasets.{name}.{key}", expected=kind, found=path, remedy=remedy)


if __name__ == "__main__":
    try:
        print(read_study(read_study_file(Path(sys.argv[1]))).folder)
    except InputError as error:
        sys.exit(f"error: {error}")

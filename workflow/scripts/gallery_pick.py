"""Pick the instances that the gallery of a study shows of one dataset."""

import sys
from pathlib import Path
from typing import Any

from sambench.gallery.pick import field, pick, with_chosen
from sambench.gallery.pictures import pictured
from sambench.jobs import Job
from sambench.parquet import inputs, read_parquet, write_parquet
from sambench.provenance import provenance
from sambench.records import IMAGES, INSTANCES, PICKS, PROMPTS
from sambench.results import paired
from sambench.results.finished import category_names
from sambench.results.headlines import headlines
from sambench.script import run


def main(
    *,
    dataset: str,
    plan: dict[str, Any],
    number: int,
    chosen: list[int],
    results: Path,
    images: Path,
    instances: Path,
    picks: Path,
) -> None:
    """Write one row per picture: an instance with one prompt, why it was picked, and the part of the image around it.

    plan: of the study, see results/paired.py. number: of instances to pick. chosen: annotation ids that are shown with
    every headline prompt, whatever their scores.
    """
    groups = {prompt: group for group, prompt in paired.prompt_sets(plan, dataset)}
    prompts = headlines(groups)
    fields = {}
    for prompt in prompts if number else ():
        first = paired.first_runtimes(plan, dataset, groups[prompt])
        scores = paired.read_scores(results, plan, dataset, groups[prompt], prompt, systems=first)
        untrained = {*plan["untrained"]}
        networks = [system.variant for system in first if system.variant not in untrained]
        fields[prompt] = field(scores, networks=networks, ceilings=paired.ceilings(plan))
    truth = read_parquet(instances, INSTANCES).to_pandas().set_index("annotation_id", drop=False)
    found = with_chosen(pick(fields, number), chosen, prompts, truth.index, dataset)
    made_of = inputs(instances=instances)
    asked = {
        prompt: read_parquet(
            Path(Job(dataset, "", "", groups[prompt]).prompts_file(results)),
            PROMPTS,
            where=("prompt", prompt),
            made_of=made_of,
        ).to_pandas()
        for prompt in prompts
    }
    seen = read_parquet(images, IMAGES).to_pandas()
    rows = pictured(found, truth, asked, seen, category_names(results, dataset))
    print(f"gallery {dataset}: {len(rows)} pictures", file=sys.stderr)
    write_parquet(picks, rows, PICKS, provenance([number, chosen]) | made_of | inputs(images=images))


if __name__ == "__main__":
    run(main)

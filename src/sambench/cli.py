"""The command `sambench`: what a user looks up or tries without running a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts

import sambench
from sambench.errors import InputError
from sambench.script import PLAIN, guarded
from sambench.status import OK

app = cyclopts.App(
    name="sambench",
    help="Measure every Segment Anything variant the same way. A study is run by Snakemake (see README.md); the "
    "commands here show, try and check variants.",
    version=sambench.__version__,
    help_format="markdown",
    default_parameter=PLAIN,
)

WeightsFolders = Annotated[
    list[Path] | None,
    cyclopts.Parameter(name="--weights", help="folder with checkpoint files; may be repeated"),
]
ConfigFile = Annotated[
    Path | None,
    cyclopts.Parameter(name="--config", help="a study's file, for variants, detectors and folders of your own"),
]


def read_config(file: Path | None, weights: list[Path] | None) -> tuple[dict[str, Any], list[Path]]:
    """The registries, with those of a study's file on top, and the folders with checkpoint files."""
    from sambench.config import read_registries, read_study_file, with_likes
    from sambench.settings import read_settings

    if file is None:
        registries = read_registries()
    else:
        registries = dict(with_likes(read_study_file(file)))
        read_settings(registries)  # mistakes are reported in one line
    return registries, weights or [Path(folder) for folder in registries["weights"]]


@app.command
def variants(
    *,
    weights: WeightsFolders = None,
    config: ConfigFile = None,
    prompts: Literal["box", "point", "box_point"] | None = None,
    licence: Literal["permissive"] | None = None,
    as_json: Annotated[bool, cyclopts.Parameter(name="--json", negative="")] = False,
) -> None:
    """List every variant of the registry: family, licences, parameters, and whether its weights are here.

    - `sambench variants --prompts box --licence permissive`

    A variant without weights shows how to get them; one that cannot be run shows the reason. Of weights that are here
    it says whether they are the official file, by its digest.

    Parameters
    ----------
    prompts
        only variants that take such prompts
    licence
        permissive: only variants whose code and weights may be used commercially
    as_json
        a list of objects instead of a table, for programs
    """
    from sambench.listing import variants_as_json, variants_as_table
    from sambench.variants.cards import read_cards

    registries, folders = read_config(config, weights)
    cards = [
        card
        for card in read_cards(registries["variants"]).values()
        if (prompts is None or prompts in card.prompts) and (licence is None or card.permissive)
    ]
    print(variants_as_json(cards, folders)) if as_json else variants_as_table(cards, folders)


@app.command
def detectors(*, weights: WeightsFolders = None, config: ConfigFile = None) -> None:
    """List every detector of the registry: family, licences, parameters, and what is missing here to get its boxes."""
    from sambench.detectors.registry import read_detectors
    from sambench.listing import detectors_as_table

    registries, folders = read_config(config, weights)
    detectors_as_table(read_detectors(registries["detectors"]), folders)


@app.command
def parity(*fixtures: Path) -> None:
    """Check adapters, generators and clicks against numbers that the official code gave.

    Prints the largest error of every stage; the exit status is 1 when one is over its tolerance.

    Parameters
    ----------
    fixtures
        parity fixtures, JSON files of any kind, or folders of them
    """
    from sambench import parity as checks

    sys.exit(checks.main(list(fixtures)))


@app.command
def segment(
    image: Path,
    *,
    variant: str,
    output: Annotated[Path, cyclopts.Parameter(name=("--output", "-o"))],
    box: list[str] | None = None,
    point: list[str] | None = None,
    background: list[str] | None = None,
    everything: bool = False,
    sampler: str = "",
    device: str = "auto",
    value_range: Annotated[str, cyclopts.Parameter(name="--range")] = "",
    weights: WeightsFolders = None,
    config: ConfigFile = None,
) -> None:
    """Try a variant on one image and write a picture of the masks.

    - `sambench segment photo.jpg --variant mobilesam --box 60,40,300,220 -o out.png`
    - `sambench segment photo.jpg --variant mobilesam --point 120,90 --background 20,20 -o out.png`
    - `sambench segment photo.jpg --variant yolov8n_seg --everything -o out.png`

    Parameters
    ----------
    image
        any picture
    variant
        a name that `sambench variants` lists
    output
        the picture to write
    box
        x0,y0,x1,y1 in pixels; may be repeated, each box gives a mask
    point
        x,y in pixels on the object; may be repeated, all points together (and with one box) give one mask
    background
        x,y in pixels off the object; may be repeated
    everything
        all masks of the image
    sampler
        how --everything finds them: grid_32 and the like, hierarchical, native; by default what the variant has
    device
        auto, cpu or cuda
    value_range
        LOW,HIGH or percentile: which values of an image of more than 8 bits become black and white
    """
    from sambench import segment as trial
    from sambench.datasets.pictures import read_upright
    from sambench.variants.base import Runtime
    from sambench.variants.cards import find_card, read_cards
    from sambench.variants.registry import build

    registries, folders = read_config(config, weights)
    card = find_card(read_cards(registries["variants"]), variant)
    prompts = None if everything else trial.make_prompts(box or [], point or [], background or [])
    trial.check_output(output)
    picture = read_upright(image, trial.parse_range(value_range))
    if prompts is not None:
        trial.check_prompts(prompts, picture.shape[:2])
    if prompts is not None and card.prompts and prompts.kind not in card.prompts:
        raise InputError(variant, expected=f"prompts of kind {' or '.join(card.prompts)}", found=prompts.kind)
    model = build(card, Runtime(device=device), folders)
    if prompts is not None and not model.supports(prompts):
        raise InputError(variant, expected="prompts that it can answer", found="more points, or of another kind")
    if model.uses_ground_truth:
        raise InputError(variant, expected="a variant that needs no ground truth", remedy="take another one")
    if prompts is None:
        masks, scores = trial.all_masks(model, picture, sampler)
    else:
        masks, scores = trial.prompted_masks(model, picture, prompts, card.selection)
    trial.write_picture(output, trial.draw(picture, list(masks), prompts))
    for number, (mask, score) in enumerate(zip(masks, scores, strict=True), 1):
        known = "" if score != score else f", predicted IoU {score:.3f}"
        print(f"mask {number}: {int(mask.sum())} pixels{known}")
    print(output)


@app.command
def download(
    *names: str,
    show: Annotated[bool, cyclopts.Parameter(name="--list", negative="")] = False,
    cache: Path | None = None,
    offline: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    weights: WeightsFolders = None,
    config: ConfigFile = None,
) -> None:
    """Fetch data sets, published boxes and checkpoints into the cache, and link them where a study looks for them.

    - `sambench download --list`
    - `sambench download coco_val2017_images coco_annotations mobilesam`

    An interrupted download continues where it stopped. `snakemake retrieve` fetches what a study needs.

    Parameters
    ----------
    names
        of the list: downloads, kinds of them (boxes), or variants and detectors, whose checkpoints are meant
    show
        list what there is and what is here
    cache
        the folder that all checkouts share; by default SAMBENCH_CACHE, else the user's cache folder
    offline
        fetch nothing, say which files to put where; also with SAMBENCH_OFFLINE=1
    """
    from sambench.detectors.registry import read_detectors
    from sambench.downloads import catalogue
    from sambench.downloads.store import Store, default_offline, download_all, show_all
    from sambench.files import default_cache
    from sambench.variants.cards import read_cards

    registries, folders = read_config(config, weights)
    cards = {**read_cards(registries["variants"]), **read_detectors(registries["detectors"])}
    table = catalogue.read_table()
    store = Store((cache or default_cache()).absolute(), offline=offline or default_offline())
    if show or not names:
        every = [*table, *(card.name for card in cards.values() if card.checkpoints)]
        show_all(catalogue.find(names or every, table, cards, folders), store)
    else:
        download_all(catalogue.find(names, table, cards, folders), store)


@app.command
def export(
    variant: str,
    *,
    output: Annotated[Path, cyclopts.Parameter(name=["--output", "-o"])],
    weights: WeightsFolders = None,
    config: ConfigFile = None,
) -> None:
    """Write the ONNX graphs of a variant: the very ones that runtimes with an engine but torch are measured with.

    - `sambench export mobilesam -o graphs`

    The folder gets encoder.onnx, decoder.onnx and receipt.json: inputs and outputs, the largest difference to torch,
    digests and versions. docs/onnx.md says how to feed them.

    Parameters
    ----------
    variant
        a name of the registry whose card says `onnx: true`
    output
        the folder; it is made, and no file is overwritten
    """
    from sambench.errors import near_matches
    from sambench.variants.base import ONNX, Runtime
    from sambench.variants.cards import read_cards
    from sambench.variants.registry import build

    registries, folders = read_config(config, weights)
    cards = read_cards(registries["variants"])
    if variant not in cards:
        raise InputError("export", variant, expected="a variant", remedy=near_matches(variant, cards))
    graphs = Runtime("onnx", device="cpu", engine=ONNX)
    state = cards[variant].availability(folders, graphs)
    if state != OK:
        raise InputError(variant, "onnx", expected="ok", found=state, remedy=cards[variant].explain(folders, graphs))
    from sambench.variants.onnx_graphs import hand_out

    for path in hand_out(build(cards[variant], Runtime(device="cpu"), folders), output):
        print(path)


@app.command
def score(
    ground_truth: Path,
    results: Path,
    *,
    iou_type: str = "",
    class_agnostic: bool = False,
    max_dets: int | None = None,
) -> None:
    """Print the average precision and recall of a result file as JSON: fractions, unrounded, by COCO's or LVIS's rules.

    - `sambench score instances_val2017.json results.json --iou-type segm`

    Where there is no ground truth of a kind, its figure is -1. A `bbox` beside a mask has no influence on masks.

    Parameters
    ----------
    ground_truth
        annotation file, COCO or LVIS, told apart by the fields that only LVIS has
    results
        list of detections in the COCO format
    iou_type
        segm or bbox; by default masks if the first result has one
    class_agnostic
        let a detection match an object of any category
    max_dets
        detections that are looked at, instead of COCO's 100 per image and category and LVIS's 300 per image
    """
    import json

    from sambench.evaluate.score import score as score_files

    found = score_files(ground_truth, results, iou_type, class_agnostic=class_agnostic, max_dets=max_dets)
    print(json.dumps(found, indent=2))
    if found["over_max_dets"]:
        print(
            f"warning: {found['over_max_dets']} of {found['images']} images have more objects than the "
            f"{found['max_dets']} detections that are looked at, so that not all can be found; see --max-dets",
            file=sys.stderr,
        )


@app.command(name="import")
def import_annotations(
    source: Path,
    *,
    images: Path,
    output: Annotated[Path, cyclopts.Parameter(name=("--output", "-o"))],
    form: Annotated[str, cyclopts.Parameter(name="--format")] = "",
    masks: Path | None = None,
) -> None:
    """Make COCO annotations of labels of YOLO, a panoptic JSON, masks as images, labelme files or videos (YouTube-VIS).

    - `sambench import dataset/data.yaml --images dataset/images -o instances.json`
    - `sambench import panoptic_val2017.json --images val2017 -o instances.json`

    Masks stay as they are, to the pixel. What has none, such as boxes, lines and stuff, is left out and counted.

    Parameters
    ----------
    source
        a folder or file of labels
    images
        the folder of the image files
    output
        the annotation file to write
    form
        yolo, panoptic, masks, labelme or videos; by default found out
    masks
        of a panoptic JSON: the folder of its PNG files; by default that of its name
    """
    from sambench.datasets.convert import convert, lines

    for line in lines(convert(source, images, output, form, masks)):
        print(line)
    print(output)


@app.command
def resume(
    *arguments: Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)],
    prefix: str = "sambench",
    cancel: Annotated[bool, cyclopts.Parameter(negative="")] = False,
) -> None:
    """Go on after Snakemake was killed on a cluster (or its machine was): no job is lost and none runs twice.

    - `sambench resume -- --workflow-profile profiles/slurm --configfile config/survey.yaml`

    Jobs of this folder that still wait in the queue are taken back, those that run are waited for, the folder is
    unlocked, and Snakemake starts again.

    Parameters
    ----------
    arguments
        what Snakemake was started with, after two hyphens
    prefix
        of the names of its jobs, the profile's slurm-jobname-prefix
    cancel
        end the running jobs instead of waiting for them
    """
    from sambench.cluster import resume as go_on

    go_on(arguments, prefix, cancel=cancel)


@app.command
def quick(
    annotations: Path,
    images: Path,
    *,
    minutes: float = 15.0,
    variants: str = "",
    results: Path = Path("results"),
    seed: int = 0,
    weights: WeightsFolders = None,
    config: ConfigFile = None,
) -> None:
    """Compare variants on your own data in so many minutes, without a file of settings.

    - `sambench quick instances.json images`
    - `sambench quick instances.json images --minutes 60 --variants mobilesam,sam_vit_b`

    It takes a random sample of images and the variants with permissive licences that are here or can be fetched, as
    many as fit the time. The study that it writes, results/quick/quick.yaml, is one to go on from.

    Parameters
    ----------
    annotations
        a COCO-format JSON file
    images
        the folder that its file names start from
    minutes
        the time for all of it; what does not fit is left out
    variants
        names with commas between them, which are all kept
    results
        where to write
    seed
        of the sample
    """
    from sambench.quick import Question, run

    registries, folders = read_config(config, weights)
    names = tuple(filter(None, (name.strip() for name in variants.split(","))))
    run(Question(annotations, images, minutes, names, results, folders, seed, config=registries))


@app.command
def check(study: Path) -> None:
    """Look at everything that a study needs before it runs, and say what is missing with the command that mends it.

    - `sambench check config/survey.yaml`

    Configuration, annotations and image files, weights and whose they are, boxes, devices, prompts, memory, disk and
    time. The exit status is 1 when something would stop the study.

    Parameters
    ----------
    study
        the file that --configfile names
    """
    from sambench.check import check as look

    stops = 0
    for finding in look(study):
        mends = f"\n              -> {finding.remedy}" if finding.remedy else ""
        print(f"{finding.level:<4}  {finding.about:<7} {finding.text}{mends}", flush=True)
        stops += finding.level == "stop"
    print("the study can run" if not stops else f"{stops} of these stop the study")
    sys.exit(1 if stops else 0)


@app.command
def simulate(
    study: Path,
    *,
    nodes: list[int] | None = None,
    gpus: int = 1,
    measured: Path | None = None,
    overhead: float | None = None,
) -> None:
    """Predict how long a study takes on a cluster, and what each stage costs.

    - `sambench simulate config/survey.yaml --nodes 1 --nodes 8`

    Durations are measured where an earlier run left its files (results/benchmarks), estimated otherwise.

    Parameters
    ----------
    study
        the file that --configfile names
    nodes
        how many there are; may be repeated; by default 1, 2, 4, 8 and 16
    gpus
        GPUs of a node, which is as many jobs as it takes at once
    measured
        another results folder to take durations from
    overhead
        seconds that Snakemake adds to a job
    """
    from sambench import schedule
    from sambench.config import read_study, read_study_file
    from sambench.footprint import footprint
    from sambench.graph import read_jobs
    from sambench.resources import ASSUMED, LONGEST

    checked, jobs = read_study(read_study_file(study)), read_jobs(study)
    work = schedule.as_submitted(schedule.tasks(checked, jobs, measured), checked.settings.site.max_runtime or LONGEST)
    extra = schedule.OVERHEAD if overhead is None else overhead
    print(schedule.report(work, nodes or [1, 2, 4, 8, 16], gpus, extra))
    print(footprint(checked, jobs))
    print(ASSUMED)


@app.command
def compare(
    first: str,
    second: str,
    *,
    study: Path | None = None,
    prompt: str = "",
    selection: Literal["argmax", "single", "oracle"] = "argmax",
    pictures: Path | None = None,
) -> None:
    """Compare two finished studies, or two variants of one: what differs beyond noise, by prompt, size and category.

    - `sambench compare results/before results/after`
    - `sambench compare mobilesam edgesam --study config/survey.yaml`
    - `sambench compare mobilesam@eager mobilesam@fast --study results/survey`

    Differences are those of the second from the first on the same prompts, with 95 % intervals of a bootstrap over
    images that are corrected for many comparisons: docs/reading-results.md.

    Parameters
    ----------
    first
        a study's configuration file or folder of results; with --study a variant, or VARIANT@RUNTIME
    second
        likewise
    study
        the study that both are variants of
    prompt
        only this prompt set
    selection
        the rule that chooses among the candidate masks
    pictures
        an HTML file to write, with the instances that differ most: image, prompt and ground truth
    """
    from sambench.results import decide, decide_pages, paired
    from sambench.results.finished import category_names, find_study

    if study is not None:
        whole = find_study(study)
        pairs = list(decide.of_variants(whole, first, second, selection))
        labels = (first, second)
    else:
        whole, other = find_study(Path(first)), find_study(Path(second))
        pairs = list(decide.of_studies(whole, other, selection))
        labels = (whole.name, other.name) if whole.name != other.name else ("first", "second")
    pairs = [pair for pair in pairs if prompt in ("", pair.prompt) and len(pair.instances)]
    if not pairs:
        remedy = "compare what was run on the same data sets with the same prompt sets"
        raise InputError(f"{first}, {second}", expected="prompts that both answered", found="none", remedy=remedy)
    draws = whole.plan["bootstrap"]
    names = {dataset: category_names(whole.results, dataset) for dataset in paired.datasets(whole.plan)}
    most = decide.most_different(pairs, names)
    found, categories = decide.differences(pairs, **draws), decide.by_category(pairs, names, **draws)
    print(decide_pages.comparison_page(labels, pairs, found, categories, most))
    if pictures is not None:
        from sambench.files import write_text
        from sambench.results.pictures import page

        write_text(pictures, page(whole, most, labels))
        print(f"\npictures: {pictures}")


@app.command
def recommend(
    study: Path,
    *,
    budget_ms: float | None = None,
    memory_mib: float | None = None,
    licence: Literal["any", "permissive"] = "any",
    prompt: str = "",
    runtime: str = "",
) -> None:
    """The variant of a finished study with the highest mIoU within a budget, and whether it is shown to be the best.

    - `sambench recommend config/survey.yaml --budget-ms 500 --memory-mib 2000 --licence permissive`

    Parameters
    ----------
    study
        its configuration file or its folder of results
    budget_ms
        the most milliseconds that one image with one box may take
    memory_mib
        the largest peak of memory
    licence
        permissive: only where code and weights may be used, changed and sold by anybody; what is unstated may not
    prompt
        the prompt set that decides; by default box, else mask_center and so on, as in the summary
    runtime
        only this runtime
    """
    from sambench.results import decide, decide_pages
    from sambench.results.finished import find_study

    budget = decide.Budget(budget_ms, memory_mib, licence)
    found = [
        decide_pages.recommendation_page(one) for one in decide.recommend(find_study(study), budget, prompt, runtime)
    ]
    if not found:
        raise InputError(study, expected="a study with prompts from ground truth", found="none")
    print("\n\n".join(found))


@app.command
def ui(study: Path | None = None, *, port: int = 5000) -> None:
    """Show the runs of a study in MLflow, on this machine only; Ctrl-C ends it.

    - `sambench ui mine.yaml`

    Parameters
    ----------
    study
        the file that --configfile names; by default the embedded study
    port
        of the server on the loopback interface
    """
    from sambench.config import read_registries, read_study, read_study_file
    from sambench.results.ui import show

    config = read_study(read_study_file(study) if study else read_registries())
    show(Path(config.results), Path(config.folder), port)


@app.command
def stage(job: Path) -> None:
    """Run one job of a study again by hand, as the workflow ran it; for debugging.

    - `sambench stage results/logs/segany/scenes/grabcut/eager/ground_truth/0-of-1.json`

    Parameters
    ----------
    job
        the values of a job, which lie beside its log; edit a copy to try something else
    """
    from sambench.config import CONFIG_FOLDER
    from sambench.script import rerun

    rerun(job, CONFIG_FOLDER.parent / "workflow" / "scripts")


def main() -> None:
    """The entry point."""
    guarded(app)


if __name__ == "__main__":
    main()

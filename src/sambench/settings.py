"""The settings of a run as typed models: the one source of what may be written and of the words that explain it.

`sambench.settings_docs` writes config/schemas/config.schema.json and the tables of config/README.md from these models.
They say which keys and values are allowed. What holds when a study gives none stands in config/config.yaml; a default
here only stands for "not given". Every cluster job reads this module: it imports pydantic and nothing heavier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from sambench.variants.engines import ENGINES

T = TypeVar("T")


class Pattern(NamedTuple):
    """A kind of text: `noun` for tables, `expected` for messages, `examples` to find near matches in."""

    noun: str
    expected: str
    examples: tuple[str, ...] = ()


# Names become parts of paths, and of command lines on a cluster: letters and digits of any alphabet.
NAME = r"^[^\W_][\w.+-]*$"
# Paths may hold anything that a file system takes, except what breaks lines and, in results, what Snakemake reads as a
# wildcard or a program as an option.
PATH = r"^[^\x00-\x1f\x7f]*$"
RESULTS = r"^[^-\x00-\x1f\x7f{}][^\x00-\x1f\x7f{}]*$"
BUILDER = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?)$"
RUNTIME_DEVICE = r"^(auto|cpu|mps|cuda(:[0-9]+)?)$"
HUB = r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$"
SAMPLER = r"^(grid_[1-9][0-9]{0,2}|hierarchical(_([4-9]|[1-9][0-9]{1,2}))?|object_aware|oracle_boxes|native)$"
SHA256 = r"^[0-9a-f]{64}$"
PATTERNS = {
    NAME: Pattern("name", "a name of letters, digits and _.+- that starts with a letter or digit"),
    PATH: Pattern("path", "a path in one line"),
    RESULTS: Pattern("path", "a path in one line, without braces and not after a hyphen"),
    BUILDER: Pattern("`module:function`", "module:function"),
    DATE: Pattern("`YYYY-MM-DD`, quoted", "a date as YYYY-MM-DD"),
    DEVICE: Pattern(
        "`auto`, `cpu`, `cuda` or `cuda:N`", "auto, cpu, cuda or cuda:N", ("auto", "cpu", "cuda", "cuda:0")
    ),
    RUNTIME_DEVICE: Pattern(
        "`auto`, `cpu`, `mps`, `cuda` or `cuda:N`",
        "auto, cpu, mps, cuda or cuda:N",
        ("auto", "cpu", "mps", "cuda", "cuda:0"),
    ),
    HUB: Pattern("`owner/repository`", "owner/repository"),
    SAMPLER: Pattern(
        "sampler",
        "a sampler (grid_N with N up to 999, hierarchical, hierarchical_N with N from 4, object_aware, oracle_boxes or "
        "native)",
        ("grid_16", "grid_32", "grid_64", "hierarchical", "object_aware", "oracle_boxes", "native"),
    ),
    SHA256: Pattern("64 hexadecimal digits", "64 hexadecimal digits in lower case"),
}


def _mistake(expected: str, found: object = None, key: str = "") -> PydanticCustomError:
    """A rule that no type expresses. key: the key that breaks it, where it is not the whole value."""
    return PydanticCustomError("mistake", "expected {expected}", {"expected": expected, "found": found, "key": key})


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise _mistake("entries that differ", f"{twice} twice")
    return values


def _countable(number: int) -> int:
    if number > 2**53:
        raise _mistake("a number that something can be counted to", f"one of {len(str(number))} digits")
    return number


def _short(path: str) -> str:
    """File systems take names of 255 bytes; a temporary name and a suffix are added to some."""
    longest = max((len(part.encode()) for part in path.split("/")), default=0)
    if longest > 200 or len(path) > 3000:
        raise _mistake("names of at most 200 bytes", f"one of {longest}")
    return path


def _has_argmax(values: tuple[str, ...]) -> tuple[str, ...]:
    if "argmax" not in values:
        raise _mistake("argmax among the selections")
    return values


class _NotNull:
    """`T | None` whose None only says that the key is not there: `null` is refused."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        nullable: Any = handler(source)
        inner: CoreSchema = nullable["schema"]
        return inner


Maybe = Annotated[T | None, _NotNull()]
List = Annotated[tuple[T, ...], Strict(False)]  # a tuple, which cannot be changed, from the list of a YAML file
UNIQUE = {"uniqueItems": True}
Distinct = Annotated[List[T], AfterValidator(_distinct), Field(json_schema_extra=UNIQUE)]
OneOrMore = Annotated[List[T], Field(min_length=1), AfterValidator(_distinct), Field(json_schema_extra=UNIQUE)]

Name = Annotated[str, Field(pattern=NAME, max_length=200)]
Names = OneOrMore[Name]
Text = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, Field(min_length=1, pattern=PATH), AfterValidator(_short)]
Count = Annotated[int, Field(ge=1), AfterValidator(_countable)]
Number = Annotated[int, Field(ge=0), AfterValidator(_countable)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Builder = Annotated[str, Field(pattern=BUILDER)]
Size = Annotated[tuple[Count, Count], Strict(False)]

Selection = Literal["argmax", "single", "oracle"]
Measure = Literal["efficiency", "latency", "throughput", "agreement", "interactive", "corruptions", "energy"]
CommonCorruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
Protocol = Literal["clicks", "clicks_fed", "box_clicks", "box_clicks_fed"]
MEASURES: tuple[str, ...] = get_args(Measure)
COMMON_CORRUPTIONS: tuple[str, ...] = get_args(CommonCorruption)
PICTURED = 24  # instances of a data set in a gallery at most: the report stays small
PromptKind = Literal["box", "point", "box_point"]


class Section(BaseModel):
    """A mapping with known keys."""

    # One build at first use, of the whole: a build per class costs every job 0.05 s.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True, allow_inf_nan=False)
    # Of a measure's section: it has the machine to itself; it is taken on the images of a data set.
    clock: ClassVar[bool] = False
    on_images: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, data: Any) -> Any:
        # pydantic's own message does not tell the known keys, which near matches are looked for in.
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError("unknown_key", "unknown key", {"key": key, "known": [*cls.model_fields]})
        return data


# Folders of `results` that studies share, and files and folders of earlier versions: no study may have their names.
SHARED = frozenset(
    {
        *MEASURES,
        *("average_precision", "benchmarks", "boxes", "coco_results", "datasets", "logs", "masks", "mlartifacts"),
        *("mlflow.db", "parts", "prompts", "retrieve", "segany", "segevery", "volumes"),
        *("figures", "report", "tables"),
    }
)


def _own_folder(name: str) -> str:
    if name.casefold() in SHARED:
        raise _mistake("a name that no folder of shared results has", name)
    return name


class Only(Section):
    """What one member of a study is combined with; a list that is left out limits nothing."""

    datasets: Maybe[Names] = Field(None, description="the only datasets that it is combined with")
    variants: Maybe[Names] = Field(None, description="the only variants that it is combined with")
    runtimes: Maybe[Names] = Field(None, description="the only runtimes that it is combined with")


class StudySelection(Section):
    """What a study runs: every combination of dataset, variant, runtime and prompt group that `only` allows."""

    name: Annotated[Name, Field(max_length=100), AfterValidator(_own_folder)] = Field(
        "config",
        description="the folder in `results` with the tables, figures and report of the study, and the name of its "
        "experiment in MLflow; not given: the name of the file, `mine` for `--configfile mine.yaml`",
    )
    datasets: Names = Field(description="names of the registry `datasets`, or of `suites` for all that they list")
    variants: Names = Field(description="names of the registry `variants`")
    runtimes: Names = Field(description="names of `runtimes`")
    prompt_groups: Distinct[Name] = Field(
        description="names of `prompt_groups`; empty: nothing is scored with prompts, for a study that only counts or "
        "times"
    )
    selections: Annotated[
        OneOrMore[Selection],
        AfterValidator(_has_argmax),
        Field(json_schema_extra=UNIQUE | {"contains": {"const": "argmax"}}),
    ] = Field(
        description="which candidate mask of a prompt counts: `argmax` (the highest predicted IoU of the multimask "
        "tokens; always needed), `single` (the single-mask token), `oracle` (the best of all tokens, an upper bound; "
        "all masks are enlarged for it)"
    )
    protocols: Distinct[Name] = Field(
        (),
        description="names of `protocols`: the prompts and selection rules of papers, on top of those of "
        "`prompt_groups` and `selections`: docs/published.md",
    )
    samplers: Distinct[Annotated[str, Field(pattern=SAMPLER)]] = Field(
        description="how segment everything finds its prompts: `grid_16`, `grid_32`, `grid_64` or any `grid_N`; "
        "`hierarchical` or `hierarchical_N` (TinySAM); `object_aware` (boxes of a detector, MobileSAMv2); "
        "`oracle_boxes` (boxes of the ground truth); `native` (the instances of a detector-style variant); empty: the "
        "stage is left out"
    )
    measures: Distinct[Measure] = Field(
        description="what is measured of each variant besides: `efficiency` (parameters, FLOPs, MACs and EER, "
        "counted without weights or images), `latency` (times and peak memory), `throughput` (images per second by "
        "batch size), `agreement` (the masks of each runtime against eager float32); without a checkpoint the weights "
        "are random and the table says so: docs/cost.md; `interactive` (clicks of a user, one after the other: "
        "docs/interactive.md); `corruptions` (spoilt images: docs/corruptions.md); "
        "`energy` (joules per image: docs/energy.md)"
    )
    volumes: Distinct[Name] = Field(
        (), description="names of `volumes.datasets`, which the variants for volumes are run on: docs/volumes.md"
    )
    gallery: Literal[False] | Annotated[int, Field(ge=0, le=PICTURED)] = Field(
        False,
        description="instances per dataset that the report shows with the masks of all variants side by side, picked "
        "where these differ; `false` or 0: none: docs/gallery.md",
    )
    gallery_annotations: dict[Name, Annotated[Distinct[int], Field(max_length=PICTURED)]] = Field(
        default_factory=dict,
        description="annotation ids per dataset that the report shows besides, such as `scenes: [12, 40]`",
    )
    only: dict[Name, Only] = Field(
        default_factory=dict,
        description="limits: a dataset, variant, runtime, prompt group, detector, sampler or measure of the study, and "
        "what alone it is combined with, such as `fast: {variants: [sam_vit_h]}`",
    )


class TopK(Section):
    """Boxes per image, by the rules that judge the dataset."""

    COCO: Count = Field(description="boxes per image under the rules of COCO")
    LVIS: Count = Field(description="boxes per image under the rules of LVIS")


class Detection(Section):
    """How detectors are run; their boxes are made once and are the same for every variant: docs/detectors.md."""

    device: Annotated[str, Field(pattern=DEVICE)] = Field(description="where detectors run, always in float32")
    batch_size: Count = Field(description="images of one size that go through the network together")
    score_threshold: NotNegative = Field(description="boxes with lower scores are left out")
    random_weights: bool = Field(
        False,
        description="`true`: a detector without weights runs with random ones, to try the graph and its cost; its "
        "boxes are marked and never scored",
    )
    top_k: TopK = Field(
        description="the best boxes per image that are kept, by the rules that judge the dataset (`COCO`, or `LVIS` "
        "where images have `neg_category_ids`)"
    )


class PromptedMasks(Section):
    """How masks prompted from ground truth are scored."""

    boundary: bool = Field(description="`true`: also the boundary IoU of every mask, for the table `boundary`")


class AveragePrecision(Section):
    """How masks from the boxes of detectors are scored."""

    class_agnostic: bool = Field(description="`true`: the category of a mask need not be right")
    keep_unjudged: bool = Field(
        False,
        description="`true`: all boxes are decoded, for a full export of the masks; `false`: only those that the rules "
        "of the dataset judge, with the same AP (LVIS: of categories that are known to be in the image or not)",
    )
    keep_masks: bool = Field(
        False,
        description="`true`: the masks of detectors' boxes stay in `results/masks` (150 bytes per box and rule); "
        "`false`: they go once their AP is known, and what needs them later (a COCO export, another AP) makes them "
        "again",
    )
    boundary: bool = Field(
        description="`true`: also the boundary AP of masks, in the table `average_precision`; under the rules of COCO "
        "only"
    )


class GeneratorSettings(Section):
    """Thresholds of segment everything, under the names of segment-anything and with its defaults."""

    points_per_batch: Count | None = Field(None, description="prompts per decode; `null`: the variant's own number")
    pred_iou_thresh: Maybe[float] = Field(None, description="a mask is kept above this predicted IoU; 0 keeps all")
    stability_score_thresh: Maybe[Fraction] = Field(
        None, description="a mask is kept from this stability score on; 0 keeps all"
    )
    stability_score_offset: Maybe[NotNegative] = Field(
        None, description="how far the mask threshold moves for the stability score"
    )
    box_nms_thresh: Maybe[Fraction] = Field(
        None, description="box IoU above which the mask with the lower predicted IoU goes"
    )
    crop_n_layers: Maybe[Annotated[int, Field(ge=0, le=4)]] = Field(
        None, description="layers of crops that are searched besides the whole image"
    )
    crop_nms_thresh: Maybe[Fraction] = Field(
        None, description="box IoU above which, of two crops, the mask of the larger one goes"
    )
    crop_overlap_ratio: Maybe[Annotated[float, Field(ge=0, lt=1)]] = Field(
        None, description="overlap of the first layer's crops, as a part of the image's shorter side"
    )
    crop_n_points_downscale_factor: Maybe[Count] = Field(
        None, description="layer i of the crops has 1/factor^i of the points per side"
    )
    min_mask_region_area: Maybe[Number] = Field(
        None, description="holes and islands of fewer pixels are removed; 0 leaves them"
    )
    multimask_output: Maybe[bool] = Field(
        None, description="the three multimask tokens per point, or the single-mask token"
    )
    use_m2m: Maybe[bool] = Field(
        None,
        description="families of SAM 1 and SAM 2: every candidate goes back as a mask prompt and its answer counts",
    )
    high_score_thresh: Maybe[float] = Field(
        None, description="sampler `hierarchical` only: logits above this count as covered"
    )


class SegmentEverything(Section):
    """Segment everything: docs/segment-everything.md."""

    images: Count = Field(description="how many images: the first ones by id that have annotations")
    warmup: Number = Field(description="images before the clock starts")
    keep_masks: bool = Field(description="`true`: also write every mask as run-lengths")
    detector: Name = Field(description="the variant whose boxes the sampler `object_aware` takes")
    settings: GeneratorSettings = Field(description="thresholds for all families")
    family_settings: dict[str, GeneratorSettings] = Field(
        description="the same for the variants of one family, on top of `settings`"
    )


class Efficiency(Section):
    """Static cost; counts depend on the image only by its size."""

    on_images = False

    reference: Name = Field(description="the variant that the EER relates to")
    image_size: Size = Field(description="height and width, in pixels, of the image that is counted for")


class Latency(Section):
    """Times; every job takes all cores."""

    clock = True

    images: Count = Field(description="how many images: the first ones by id that have annotations")
    boxes: Count = Field(description="boxes per image, decoded one by one")
    warmup: Count = Field(description="calls before the clock starts")
    min_seconds: NotNegative = Field(description="the images are timed in rounds until this many seconds have passed")


class Throughput(Section):
    """Images per second with their ground-truth boxes; every job takes all cores."""

    clock = True

    images: Count | None = Field(
        description="how many images: the first ones by id that have annotations; `null`: all of them"
    )
    batches: OneOrMore[Count] = Field(
        description="batch sizes to try, smallest first; larger ones are not tried once memory ends"
    )
    memory_limit_mib: Positive | None = Field(
        description="MiB of the GPU, or of the process on the CPU; `null`: nine tenths of what there is"
    )
    min_seconds: NotNegative = Field(
        description="each batch size is measured for at least this many seconds and on all images at least once"
    )


class Energy(Section):
    """Joules per image with its ground-truth boxes; every job takes all cores."""

    clock = True

    images: Count | None = Field(
        description="how many images: the first ones by id that have annotations; `null`: all of them"
    )
    batch: Count = Field(description="images that are encoded at once")
    min_seconds: NotNegative = Field(description="the images are gone through again for at least this many seconds")
    idle_seconds: Positive = Field(description="before that, how long the power of the idle machine is measured")


class Agreement(Section):
    """The masks of every runtime against those of eager float32."""

    images: Count = Field(description="how many images: the first ones by id that have annotations")
    boxes: Count = Field(description="boxes per image")


class Interactive(Section):
    """Clicks of a user, one after the other, where the last answer is most wrong."""

    images: Count | None = Field(
        description="how many images: the first ones by id that have annotations; `null`: all of them"
    )
    clicks: Annotated[int, Field(ge=1, le=99)] = Field(
        description="clicks per instance; what needs more to an IoU counts as so many"
    )
    protocols: OneOrMore[Protocol] = Field(
        description="`clicks`: from the first click on; `box_clicks`: the box first, then clicks; `clicks_fed`, "
        "`box_clicks_fed`: the same, with the logits of each answer going back to the decoder"
    )


class Corruptions(Section):
    """Prompts on spoilt images; the ground truth stays."""

    images: Count | None = Field(
        description="how many images: the first ones by id that have annotations; `null`: all of them"
    )
    prompts: OneOrMore[Literal["box", "tight_box", "box_center", "mask_center"]] = Field(
        description="prompt types; each is made on the image as it was"
    )
    names: Distinct[CommonCorruption] = Field(description="which of the 15 common corruptions of ImageNet-C")
    severities: OneOrMore[Annotated[int, Field(ge=1, le=5)]] = Field(description="of each of them, 1 to 5")
    jpeg_quality: Distinct[Annotated[int, Field(ge=1, le=95)]] = Field(
        description="images stored once more as JPEG of these qualities"
    )
    scale: Distinct[Annotated[float, Field(gt=0, le=4)]] = Field(
        description="images smaller or larger by these factors; prompts and ground truth are scaled with them"
    )


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise _mistake("low below high", f"[{values[0]}, {values[1]}]")
    return values


Range = Annotated[tuple[float, float], Strict(False), AfterValidator(_rising)]
Files = FilePath | OneOrMore[FilePath]


class VolumeSet(Section):
    """NIfTI images and their labels."""

    images: Files = Field(description="a folder with `.nii` or `.nii.gz` files, or a list of files")
    labels: Files = Field(
        description="the labels, whole numbers and 0 for background: a folder whose files have the names of the images "
        "(less nnU-Net's `_0000`), or a list of files in the same order"
    )
    title: str = Field("", description="for people")
    spacing: Maybe[Positive] = Field(
        None, description="millimetres between voxels that both are resampled to; not given: left as they are"
    )
    clamp: Maybe[Range] = Field(
        None, description="`[low, high]`: what voxels below and above become, such as `[-1000, 1000]` for CT"
    )


class Volumes(Section):
    """Clicks in volumes; a stage and a table of their own."""

    datasets: dict[Name, VolumeSet] = Field(description="the registry of sets of volumes")
    clicks: Annotated[int, Field(ge=1, le=99)] = Field(description="clicks per volume and label")


def _allowed_with(engine: str) -> dict[str, tuple[Any, ...]]:
    """Values of a runtime's other keys that an engine takes; of `device` without its number. Not named: all."""
    if engine == "torch":
        return {"precision": ("float32",)}
    kind = ENGINES[engine]
    exported = {"dtype": ("float32",), "attention": ("native",), "compile": (False,)}
    return {"device": tuple(kind.devices), **exported, "precision": tuple(kind.precisions)}


def _engine_rule(engine: str) -> dict[str, Any]:
    """The same as a JSON Schema."""
    allowed = _allowed_with(engine)
    then: dict[str, Any] = {key: {"enum": list(values)} for key, values in allowed.items() if key != "device"}
    if "device" in allowed:
        then["device"] = {"pattern": f"^({'|'.join(allowed['device'])})(:[0-9]+)?$"}
    asked = {"properties": {"engine": {"const": engine}}}
    # Without the key, it is torch.
    return {"if": asked if engine == "torch" else {"required": ["engine"], **asked}, "then": {"properties": then}}


class Runtime(Section):
    """How a variant is executed."""

    device: Annotated[str, Field(pattern=RUNTIME_DEVICE)] = Field(
        "auto", description="where the variant runs; `auto`: CUDA when there is one"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of weights and activations")
    attention: Literal["native", "sdpa"] = Field(
        "native",
        description="`native`: each family's own code; `sdpa`: torch's fused kernel also where segment-anything spells "
        "attention out",
    )
    compile: bool = Field(False, description="compile the image encoder with torch.compile; needs a C++ compiler")
    engine: Literal["torch", "onnxruntime", "openvino", "tensorrt", "coreml"] = Field(
        "torch",
        description="other than `torch`: image encoder and mask decoder are exported ONNX graphs that this engine "
        "runs, for cards with `onnx: true`; `onnxruntime` takes `device: cpu` or `cuda`, `tensorrt` `cuda`, `openvino` "
        "and `coreml` `cpu`: docs/onnx.md",
    )
    precision: Maybe[Literal["float32", "bfloat16", "float16"]] = Field(
        None,
        description="what such an engine computes in: `openvino` also in `bfloat16`, `coreml` also in `float16`, "
        "`tensorrt` in all; not given: `float32`",
    )
    decoder: Maybe[Literal["fast", "official"]] = Field(
        None,
        description="`official`: the plain code path of the authors' mask decoder; `fast`: the same algebra, faster, "
        "and on a CPU also in SAM's image encoder",
    )
    threads: Count | None = Field(None, description="CPU threads; `null`: all cores that the job has")

    model_config = ConfigDict(json_schema_extra={"allOf": [_engine_rule(name) for name in ("torch", *ENGINES)]})

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> Runtime:
        for key, allowed in _allowed_with(self.engine).items():
            value = getattr(self, key)
            if value is not None and (value.partition(":")[0] if key == "device" else value) not in allowed:
                words = " or ".join(str(each).lower() for each in allowed)
                raise _mistake(f"{words} with the engine {self.engine}", str(value).lower(), key)
        return self


class Statistics(Section):
    """The bootstrap, clustered by image."""

    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(description="resamples of the bootstrap")
    seed: Number = Field(description="seed of the bootstrap")
    reference: Maybe[Name] = Field(
        None,
        description="the variant that the table `comparison` compares all others with; not given: the reference of "
        "the EER (`efficiency.reference`) where it has numbers, else the first network of the study that has, else "
        "the first variant",
    )


CheckImages = Literal["headers", "full"]
OnBadImage = Literal["stop", "skip"]


class SampleSource(Section):
    """Where a sample of a large data set comes from: docs/downloads.md."""

    images: Count = Field(description="how many images: those whose ids have the smallest SHA-256")
    zip: OneOrMore[Text] = Field(description="addresses of the archive that holds the annotation file")
    member: Text = Field(description="the annotation file in it; images come from the `coco_url` that it gives")
    whole: Maybe[Name] = Field(
        None, description="the name in `downloads.tsv` of the whole archive, for servers that give no parts of files"
    )


class Dataset(Section):
    """COCO-format annotations and the folder of their images, or a generator of both."""

    annotations: FilePath | OneOrMore[FilePath] = Field(
        "", description="a COCO-format JSON file: polygons or RLE; or a list of several, which count as one"
    )
    images: FilePath = Field("", description="the folder that the `file_name`s of the annotations start from")
    image_count: Maybe[Count] = Field(
        None,
        description="how many images there are, roughly: `shards: auto`, time limits and `sambench simulate` go by it; "
        "not given: one shard",
    )
    image_limit: Maybe[Count] = Field(None, description="take only the first so many annotated images by id")
    generator: Maybe[Literal["scenes"]] = Field(
        None, description="instead of `annotations` and `images`: 24 generated images"
    )
    title: str = Field("", description="for people")
    downloads: List[Name] = Field((), description="names of `downloads.tsv` that bring its files")
    sample: Maybe[SampleSource] = Field(
        None, description="instead of `downloads`: a small sample is fetched, its images one by one"
    )
    check_images: Maybe[CheckImages] = Field(None, description="instead of the key of the same name at the top")
    on_bad_image: Maybe[OnBadImage] = Field(None, description="instead of the key of the same name at the top")
    exif: Literal["apply", "ignore", "auto"] = Field(
        "auto",
        description="the orientation that image files state: `apply` it, `ignore` it, or `auto`: apply it where only "
        "the turned size is the one in the annotations",
    )
    range: Maybe[Literal["percentile"] | Range] = Field(
        None,
        description="of images with more than 8 bits per value: `[low, high]`, the values that become black and white, "
        "or `percentile`, the 1st and 99th percentile of each image; not given: the upper 8 of 16 bits",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["generator"], "anyOf": [{"required": ["annotations"]}, {"required": ["images"]}]}
        }
    )

    @property
    def fetched(self) -> bool:
        """Whether a study brings its files."""
        return bool(self.downloads or self.sample)

    @model_validator(mode="after")
    def _has_one_source(self) -> Dataset:
        files = [key for key in ("annotations", "images") if key in self.model_fields_set]
        given = [*files, "generator"] if self.generator else files
        if given not in (["annotations", "images"], ["generator"]):
            raise _mistake("annotations and images, or a generator", " and ".join(given) or "none of them")
        return self

    @property
    def annotation_files(self) -> tuple[str, ...]:
        """The annotation files; none where there is a generator."""
        given = self.annotations
        return tuple(filter(None, (given,))) if isinstance(given, str) else given


class PackageFile(Section):
    """A package of Python's index that holds a file of weights."""

    name: Name = Field(description="name of the package")
    version: Text = Field(description="its version")
    member: Text = Field(description="the path of the file in it, without the top folder of a source package")
    sha256: Annotated[str, Field(pattern=SHA256)] = Field(
        "", description="digest of the package's file or of the member; not given: those of the checkpoint suffice"
    )


class Checkpoint(Section):
    """One file of weights and how to check it: docs/downloads.md."""

    file: FilePath = Field(description="its name in a folder of `weights`")
    url: str = Field("", description="where it is published")
    bytes: Maybe[int] = Field(None, description="its size")
    sha256: Annotated[str, Field(pattern=SHA256)] = Field("", description="its digest")
    sha256_source: str = Field("", description="who says so")
    md5: str = Field("", description="its MD5, where that is what the authors state")
    git_blob: str = Field("", description="its git hash, for a file that is kept in a git repository")
    weights_key: str = Field(
        "",
        description="where in the file the weights lie, such as `ema.module`; not given: found by their layout",
    )
    package: Maybe[PackageFile] = Field(
        None,
        description="a package that holds the same file, taken where the address does not answer; nothing of it is run",
    )


class Card(Section):
    """What variants and detectors have in common."""

    family: str = Field(description="the kind of architecture")
    builder: Builder = Field("", description="what builds it; not given: there is no public code")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the builder")
    input_size: int | None = Field(None, description="side of the image that the network sees, in pixels")
    checkpoints: List[Checkpoint] = Field((), description="the files to load, in this order")
    module: str = Field("", description="a package that only this entry needs")
    extra: str = Field("", description="the extra of sambench that installs `module`")
    licence_code: str = Field("", description="licence of the code")
    licence_weights: str = Field("", description="licence of the weights")
    paper: str = Field("", description="the paper, such as arXiv 2306.12156")
    code: str = Field("", description="address of the public code")
    params_m: float | None = Field(None, description="millions of parameters, as published")
    reason: str = Field("", description="why it cannot be run")
    notes: str = Field("", description="for people")
    checked: Annotated[str, Field(pattern=DATE)] = Field(
        "", description="the day on which somebody last looked for public code and weights"
    )


class DetectorCard(Card):
    """An entry of the registry of detectors: docs/detectors.md."""

    hub: Annotated[str, Field(pattern=HUB)] = Field(
        "", description="a repository of the Hugging Face Hub, instead of `checkpoints`"
    )
    files: Names = Field(
        (),
        description="what is needed of `hub`; not given: `config.json`, `preprocessor_config.json` and "
        "`model.safetensors`; the files lie in a folder of the detector's name",
    )
    published: dict[Name, FilePath] = Field(
        {}, description="dataset: a file of results in the COCO format that is imported; it comes before the builder"
    )
    score_threshold: Maybe[NotNegative] = Field(None, description="instead of `detection.score_threshold`")
    top_k: Maybe[Count] = Field(None, description="instead of `detection.top_k`")


class Counts(Section):
    """Counts of a variant that are known."""

    image_size: Size = Field(description="height and width of the image that was counted for")
    parameters: Number = Field(description="parameters")
    flops: Number = Field(description="FLOPs by calflops")
    macs: Number = Field(description="MACs by calflops")
    products: Number = Field(description="FLOPs by torch.utils.flop_counter")


class VariantCard(Card):
    """An entry of the registry of variants: docs/adding-a-variant.md."""

    prompts: List[PromptKind] = Field((), description="the prompts that it takes; `box_point`: both at once")
    selection: Maybe[Literal["argmax", "single"]] = Field(None, description="the selection rule that its authors use")
    plain_only: bool = Field(
        False,
        description="`true`: it runs only in float32 and uncompiled, like `eager`; in other runtimes its cell says "
        "`unsupported runtime`",
    )
    onnx: bool = Field(
        False,
        description="`true`: its image encoder and mask decoder can be exported for engines other than torch (SAM 1 "
        "and its relatives, SAM-HQ, EfficientSAM, SAM 2, EdgeTAM, EfficientTAM)",
    )
    volumes: bool = Field(
        False,
        description="`true`: it segments volumes and not images; only the stage `volumes` runs it: docs/volumes.md",
    )
    counts: Maybe[Counts] = Field(
        None,
        description="known counts, used instead of building it as the EER's reference: `image_size` (height, width), "
        "`parameters`, `flops`, `macs`, `products`",
    )
    status: str = Field("", description="`released`, or why it cannot be run")
    like: Maybe[Name] = Field(
        None, description="the variant whose keys hold where this entry gives none: for a checkpoint of your own"
    )
    file: Maybe[FilePath] = Field(
        None, description="with `like`: your checkpoint, in a folder of `weights` or by its path"
    )


class PaperProtocol(Section):
    """How a paper measured, as far as settings can repeat it: docs/published.md."""

    prompts: Names = Field(description="its prompt types")
    selections: OneOrMore[Selection] = Field(description="its selection rules")
    sources: OneOrMore[Text] = Field(
        description="how `source` begins in config/published.csv for figures that were made in this way"
    )
    differs: str = Field("", description="what no setting repeats; empty: figures compare like with like")


class Tracking(Section):
    """MLflow."""

    uri: str = Field(
        description="the tracking server; empty: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the results folder; user, "
        "password and token come from the environment: docs/mlflow.md"
    )


class Site(Section):
    """What a cluster wants of every job; nothing of it changes a result: docs/sites.md."""

    slurm_extra: str = Field(
        "", description="further options of sbatch, such as `--reservation=study`, beside those of the rules"
    )
    gpu_model: str = Field("", description="the kind of GPU that jobs with one ask for, `a100` for `--gpus=a100:1`")
    gres: str = Field("", description="what jobs with a GPU ask for as `--gres`, such as `gpu:1`")
    container: str = Field(
        "",
        description="the image in which jobs run with `--sdm apptainer`, a file or an address such as `docker://...`; "
        "empty: `containers/sambench.sif` of the checkout",
    )
    exclusive: bool = Field(
        True, description="whether jobs with a clock (latency, throughput, segment everything's time) get a whole node"
    )
    max_runtime: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the longest time limit that the cluster grants, in minutes; `null`: a day"
    )


class Settings(Section):
    """The merged settings of a run. A file gives only what differs from config/config.yaml and the registries."""

    results: Annotated[str, Field(min_length=1, pattern=RESULTS), AfterValidator(_short)] = Field(
        description="the folder for everything that is written"
    )
    weights: List[FilePath] = Field(description="folders that are searched for checkpoint files, in this order")
    cache: Annotated[str, Field(pattern=PATH), AfterValidator(_short)] = Field(
        "",
        description="the folder in which downloads are kept for all checkouts (docs/downloads.md); empty: "
        "`SAMBENCH_CACHE`, else the user's cache folder",
    )
    # Not strict: `--config download=false` gives the text.
    download: Annotated[bool, Strict(False)] = Field(
        True, description="fetch what is missing before measuring; `false`: stay offline and say what is missing"
    )
    check_images: CheckImages = Field(
        "headers",
        description="what the index looks at of every image file: `headers` (size, kind of values, whether the end is "
        "there) or `full` (decode it, and tell by its whole content whether it was replaced)",
    )
    on_bad_image: OnBadImage = Field(
        "stop",
        description="image files that are missing, broken or of another size: `stop` and name them all, or `skip` "
        "them: they are left out for every variant alike and counted in the table `datasets`",
    )
    study: StudySelection = Field(description="what is run: every combination of the names is one job per shard")
    shards: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="jobs that one (dataset, variant, runtime, prompt group) is split into; `auto`: one per 1,250 "
        "images of the dataset's `image_count`; a job that is cut off loses one shard"
    )
    prompt_groups: dict[Name, Names] = Field(
        description="lists of prompt sets that are decoded on one encoding of each image: prompt types, made from "
        "ground truth and scored by IoU, and detectors, whose boxes give masks that are scored by AP"
    )
    protocols: dict[Name, PaperProtocol] = Field({}, description="protocols of papers by name: docs/published.md")
    detection: Detection = Field(description="how detectors are run: docs/detectors.md")
    segany: PromptedMasks = Field(description="how masks prompted from ground truth are scored")
    average_precision: AveragePrecision = Field(description="how masks from the boxes of detectors are scored")
    segevery: SegmentEverything = Field(description="segment everything: docs/segment-everything.md")
    efficiency: Efficiency = Field(description="parameters, FLOPs, MACs and EER: docs/cost.md")
    latency: Latency = Field(description="times and peak memory: docs/timing.md")
    throughput: Throughput = Field(description="images per second by batch size: docs/timing.md")
    agreement: Agreement = Field(description="the masks of each runtime against eager float32: docs/timing.md")
    interactive: Interactive = Field(description="clicks of a user, one after the other: docs/interactive.md")
    energy: Energy = Field(description="joules per image: docs/energy.md")
    corruptions: Corruptions = Field(description="spoilt images: docs/corruptions.md")
    tracking: Tracking = Field(description="MLflow: docs/mlflow.md")
    volumes: Volumes = Field(description="clicks in volumes: docs/volumes.md")
    runtimes: dict[Name, Runtime] = Field(description="how a variant is executed")
    statistics: Statistics = Field(description="the bootstrap, clustered by image")
    site: Site = Field(
        default_factory=lambda: Site.model_validate({}), description="what a cluster wants of every job: docs/sites.md"
    )
    datasets: dict[Name, Dataset] = Field(description="the registry of datasets")
    suites: dict[Name, Names] = Field(
        default_factory=dict,
        description="lists of data sets that are reported together, with their mean and rank, in the table `suites`; "
        "the name of a suite may stand in `study.datasets` for all of them: docs/suites.md",
    )
    detectors: dict[Name, DetectorCard] = Field(description="the registry of detectors")
    variants: dict[Name, VariantCard] = Field(description="the registry of variants")


def _measures(kind: str) -> tuple[str, ...]:
    """The measures whose section says that they are of a kind."""
    return tuple(name for name in MEASURES if getattr(Settings.model_fields[name].annotation, kind))


CLOCKS = _measures("clock")
ON_IMAGES = _measures("on_images")


def read_settings(config: Mapping[str, Any]) -> Settings:
    """The typed form of a merged configuration; InputError, one line, when it is none."""
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        from sambench.settings_errors import explain

        raise explain(error, config) from None

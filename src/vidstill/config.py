"""What a run is: typed sections, two levels deep, each of which checks itself."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vidstill.overrides import ConfigError, parse_yaml, put_all, split_overrides
from vidstill.overrides import parse_value as parse_value

RECIPES = Path(__file__).parent / "recipes"

OnError = Literal["replace", "skip", "raise"]

# Values of clip.sampling and clip.views in files of earlier versions, and what they are called.
FORMER_NAMES = {
    "sparse": "segments", "steps": "tsm_segments", "gaps": "uniform_sample_frames", "looped": "dense_looped",
    "spread": "sample_frames", "range": "dense_sample_frames", "window": "timed_window",
    "margin": "opencv", "exact": "torch", "antialiased": "pillow",
}  # fmt: skip


class Section(BaseModel):
    """Settings of one kind. `~` is the home folder in paths."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    @field_validator("*")
    @classmethod
    def _of_home(cls, value: Any) -> Any:
        return Path(os.path.expanduser(value)) if isinstance(value, Path) else value  # noqa: PTH111 - without a home too


class Data(Section):
    """Where the labelled videos are and how they are divided."""

    root: Path = Field(Path(), description="folder that all paths here, and those of the lists, are relative to")
    format: str = Field("auto", description="folders, csv, ucf101 …, see docs/data.md; auto: what lies in root")
    train: Path | None = Field(None, description="csv of the training videos")
    val: Path | None = Field(None, description="csv of the validation videos")
    test: Path | None = Field(None, description="csv of the test videos; the validation videos when absent")
    fps: float | None = Field(
        None, gt=0, le=1000, description="frames per second of frame folders; null: the data set's, else 25"
    )
    classes: str | None = Field(None, description="class list: a shipped one by name (ucf101) or a file")
    multi_label: bool = Field(False, description="a video may have several classes: sigmoid scores, judged by mAP")
    splits: Path | None = Field(None, description="folder of the official split files (ucf101, hmdb51)")
    fold: int = Field(1, ge=1, description="which official split, or which part of a divided folder is held out")
    split: Literal["stratified", "group"] = Field("stratified", description="how undivided videos are divided")
    group: str | None = Field(None, description="regular expression; its first group names the source of a path")
    folds: int = Field(5, ge=2, description="number of parts of a stratified or group split; one is validation")
    nested: bool = Field(
        False, description="held-out videos are only tested; one of `folds` parts of the others chooses the epoch"
    )
    on_error: OnError = Field("replace", description="what to do with a video that does not decode")


class Model(Section):
    """Which network, from which weights."""

    name: str = Field("vfl_net", description="a network of `vidstill models`")
    options: dict[str, Any] = Field(default_factory=dict, description="constructor overrides, e.g. {width: 32}")
    weights: str | None = Field(
        None, description="what to start from: file, run folder, a name from `vidstill weights`, hf://owner/repo/file"
    )
    head: Literal["error", "fresh"] = Field("fresh", description="a classifier of another size: refuse or draw anew")


Level = Annotated[float, Field(ge=-1000, le=1000)]  # of a colour, 0 … 255
Deviation = Annotated[float, Field(ge=1e-3, le=1000)]
MOST_PIXELS = 2**28  # of one clip: 3 GB as float32, five times what any published model sees


class Clip(Section):
    """What one input clip is; also what a model says of itself as `model.input`. Not to be changed: copy it with
    `clip.model_copy(update={"frames": 16})`."""

    model_config = ConfigDict(frozen=True)

    frames: int = Field(8, ge=1, le=1024, description="frames of a clip")
    interval: int = Field(4, ge=1, le=1024, description="frames from one to the next; segments: shortens the video")
    size: int = Field(224, ge=8, le=2048, description="side of the square input, pixels")
    sampling: Literal[
        "segments", "tsm_segments", "uniform_sample_frames",
        "dense", "dense_looped", "sample_frames", "dense_sample_frames", "timed_window",
    ] = Field("segments", description="the first three show the whole video: docs/data.md")  # fmt: skip
    fps: float | None = Field(
        None, gt=0, le=1000, description="timed_window: rate in which `interval` counts; null: the video's own"
    )
    views: Literal["opencv", "torch", "pillow"] = Field(
        "opencv", description="resizing of a test: to whole grey levels; unrounded (SlowFast); with antialiasing"
    )
    mean: tuple[Level, Level, Level] = Field(
        (123.675, 116.28, 103.53), description="subtracted from red, green and blue, levels of 0 … 255"
    )
    std: tuple[Deviation, Deviation, Deviation] = Field(
        (58.395, 57.12, 57.375), description="that red, green and blue are then divided by, levels"
    )
    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="usual length of the training videos; set by training"
    )

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Clip:
        if self.frames * self.size**2 > MOST_PIXELS:
            raise ValueError(
                f"clip.frames {self.frames} of clip.size {self.size} are {self.frames * self.size**2:.1e} pixels, more "
                f"than {MOST_PIXELS:.1e}: lower the one or the other"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        """Files that were written under other names stay readable."""
        if not isinstance(values, dict):
            return values
        given = {name: values[name] for name in ("sampling", "views") if isinstance(values.get(name), str)}
        return {**values, **{name: FORMER_NAMES.get(value, value) for name, value in given.items()}}

    @property
    def spans(self) -> bool:
        """Whether one clip shows the whole video, and not a stretch of it."""
        return self.sampling in ("segments", "tsm_segments", "uniform_sample_frames")

    def same_frames(self, other: Clip) -> bool:
        """Whether clips of both formats have the same pixels, in training and in a test, before normalisation."""
        names = ("frames", "interval", "size", "sampling", "fps", "views", "mean")  # mean: what erasing fills in
        return all(getattr(self, name) == getattr(other, name) for name in names)


class Augment(Section):
    """What training does to a clip. Probabilities are per clip."""

    crop: Literal["resized", "scaled", "multiscale"] = Field(
        "resized",
        description="a random share of the frame; a window of clip.size in the frame at a random scale; a square of 1, "
        "0.84, 0.71, 0.59 or 0.5 times the short side (Efficient-3DCNNs)",
    )
    scales: tuple[int, int] = Field((256, 320), description="scaled: least and largest short side, pixels")
    inverse_scales: bool = Field(False, description="scaled: 1 / side is what is uniform")
    scale: tuple[float, float] = Field((0.08, 1.0), description="share of the frame that the random crop covers")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="resized: width / height of the random crop")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image")
    jitter: float = Field(0.8, ge=0, le=1, description="probability of colour jitter")
    brightness: float | tuple[float, float] = Field(0.4, description="0.4, or the range of factors, [0.6, 1.4]")
    contrast: float | tuple[float, float] = Field(0.4, description="as brightness")
    saturation: float | tuple[float, float] = Field(0.2, description="as brightness")
    hue: float = Field(0.1, ge=0, le=0.5, description="largest shift, in turns of the colour wheel")
    jitter_per_frame: bool = Field(False, description="draw the jitter anew for every frame, as released")
    grey: float = Field(0.2, ge=0, le=1, description="probability of a clip without colour")
    randaugment: str | None = Field(None, description='e.g. "rand-m9-n2-mstd0.5-inc1"')
    erase: float = Field(0.0, ge=0, le=1, description="probability of random erasing")
    mixup: float = Field(0.8, ge=0, description="alpha of the Beta distribution; 0 switches mixup off")
    cutmix: float = Field(1.0, ge=0, description="alpha of the Beta distribution; 0 switches cutmix off")
    switch: float = Field(0.5, ge=0, le=1, description="probability of cutmix where both are on")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")


class Multiplier(Section):
    """Of the rate and the weight decay of some parameters."""

    lr: float = Field(1.0, ge=0, description="of the rate")
    decay: float = Field(1.0, ge=0, description="of the weight decay")


class Optim(Section):
    """Optimiser and schedule."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="the optimiser")
    lr: float = Field(0.1, gt=0, description="learning rate, per `reference_batch` clips where that is given")
    reference_batch: int | None = Field(512, ge=1, description="rates are scaled by batch / this; null: no scaling")
    momentum: float = Field(0.9, description="sgd: share of the last update that goes on")
    nesterov: bool = Field(True, description="sgd: Nesterov's momentum")
    dampening: float = Field(0, ge=0, le=1, description="sgd: of the momentum; 0 with nesterov")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adam, adamw: decay of the two running means")
    weight_decay: float = Field(1e-4, ge=0, description="not of biases and 1-D tensors, without `multipliers`")
    multipliers: dict[str, Multiplier] = Field(
        default_factory=dict,
        description="of rate and decay, of parameters whose name holds the key, {backbone: {lr: 0.1}}",
    )
    grouping: Literal["combined", "longest"] = Field(
        "combined", description="where several keys fit: multiply all, or take the longest alone (OpenMMLab)"
    )
    schedule: Literal[
        "cosine", "epoch_cosine", "iteration_cosine", "exact_cosine", "linear", "step", "steps", "constant"
    ] = Field(
        "cosine",
        description="how the rate falls; epoch_cosine: epoch by epoch, exact_cosine: to 0, step: every decay_epochs, "
        "steps: at the milestones",
    )
    milestones: list[float] = Field(default_factory=list, description="steps: epochs at which the next factor counts")
    factors: list[float] = Field(default_factory=list, description="steps: of the rate, from each milestone on")
    warmup_epochs: float = Field(0, ge=0, description="epochs in which the rate rises from `warmup_lr`")
    warmup_lr: float = Field(0.001, ge=0, description="rate of the first step of the warm-up, scaled as `lr`")
    warmup_prefix: bool = Field(False, description="count the schedule from the end of warm-up")
    min_lr: float = Field(0.001, ge=0, description="rate that cosine schedules end at, scaled as `lr`")
    decay_epochs: float = Field(30, gt=0, description="step: epochs from one decay to the next")
    decay_rate: float = Field(0.1, gt=0, description="step: factor of the rate at each; multigrid: at each milestone")
    clip_grad: float | None = Field(5.0, gt=0, description="largest gradient norm; null: not clipped")

    @model_validator(mode="after")
    def _consistent(self) -> Optim:
        if len(self.factors) < len(self.milestones):
            raise ValueError(
                f"optim.milestones has {len(self.milestones)} epochs and optim.factors {len(self.factors)} numbers: "
                "give each milestone its factor"
            )
        if self.schedule == "steps" and self.milestones[:1] != [0]:
            raise ValueError("optim.schedule steps needs optim.milestones that begin with 0, e.g. [0, 44, 88]")
        if self.nesterov and self.dampening:
            raise ValueError(f"optim.dampening {self.dampening:g} and optim.nesterov exclude each other")
        return self


class Train(Section):
    """How the loop runs."""

    epochs: int = Field(120, ge=1, description="sweeps over the training videos")
    batch: int = Field(8, ge=1, description="clips per process and step")
    accumulate: int = Field(1, ge=1, description="steps per update")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the arithmetic; fp16 needs a GPU")
    compile: bool = Field(False, description="torch.compile, stage by stage: a slow start, then faster steps")
    checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the exponential moving average of the weights")
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a better top-1 (mAP)")
    threads: int | None = Field(None, ge=1, description="CPU threads of a step, 1 for tiny networks; null: PyTorch's")
    devices: int = Field(1, ge=1, description="processes on this machine")
    nodes: int = Field(1, ge=1, description="machines")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: a GPU where there is one")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="of several processes: ddp keeps the whole model in each, fsdp shards it; auto: ddp"
    )
    workers: int | None = Field(None, ge=0, description="loader processes per training process; null: by the cores")
    start: Literal["fork", "spawn", "forkserver"] | None = Field(None, description="how loader processes start")
    freeze_norms: bool = Field(False, description="batch norms keep the statistics of the starting weights")
    precise_norms: int = Field(0, ge=0, description="batches that measure batch norms anew after every epoch")
    validate_every: int = Field(1, ge=1, description="epochs between validations; always after the last")
    save_every: int = Field(0, ge=0, description="steps between checkpoints inside an epoch; 0: only after epochs")

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if self.accelerator == "cpu" and self.precision == "fp16":
            raise ValueError("train.precision fp16 needs a GPU: with train.accelerator cpu use fp32 or bf16")
        if self.freeze_norms and self.precise_norms:
            raise ValueError("train.freeze_norms keeps statistics that train.precise_norms measures anew: choose one")
        if self.strategy == "fsdp" and self.ema is not None:
            raise ValueError("train.strategy fsdp shards the weights and train.ema keeps a whole copy: choose one")
        return self


class Test(Section):
    """Views of one video in the final test."""

    clips: int = Field(4, ge=1, description="temporal views of each video, evenly spread")
    crops: Literal[1, 3] = Field(3, description="spatial views of a clip: the centre, or three along the longer side")
    size: int | None = Field(None, ge=8, description="side of the crops, pixels; null: clip.size")
    ensemble: Literal["sum", "max", "score"] = Field("sum", description="of the scores of views; score: of mean logits")
    side: int | None = Field(None, ge=8, description="short side before the crop, pixels; null: for one crop 256/224")
    random: bool = Field(False, description="random clips, seeded, as the released Video-FocalNet test")
    batch: int = Field(4, ge=1, description="videos per step")


class Multigrid(Section):
    """Smaller clips in larger batches, CVPR 2020: about as good in half the time or less."""

    long: bool = Field(False, description="from small clips to full ones in every interval of optim.milestones")
    short: bool = Field(False, description="three sizes in turn, step by step")
    epoch_factor: float = Field(1.5, gt=0, description="epochs, times those of the recipe")
    norm_batch: int = Field(8, ge=1, description="clips whose statistics batch norm sees, whatever the batch")


class Distil(Section):
    """Whom the student learns from, and what. A term with weight 0 is off."""

    teacher: list[str] = Field(default_factory=list, description="run folders or model files; several are averaged")
    teacher_recipe: str | None = Field(None, description="recipe of teacher files that do not name their network")
    teacher_model: Model | None = Field(None, description="that network, where there is no recipe for it")
    teacher_weights: list[float] | None = Field(None, description="share of each teacher; null: equal shares")
    alpha: float = Field(0.2, ge=0, le=1, description="share of the teacher's term; the labels have the rest")
    temperature: float = Field(10.0, gt=0, description="that logits are divided by before they are compared")
    loss: Literal["kl", "dkd", "dist"] = Field("kl", description="how logits are compared")
    dkd_beta: float = Field(8.0, ge=0, description="dkd: weight of the classes that are not the label's")
    standardise: bool = Field(False, description="kl, dkd: z-scored logits, so that temperature is in deviations")
    kl: Literal["forward", "released"] = Field("forward", description="which one; released: as DVFL-Net's code has it")
    beta: float = Field(0.0, ge=0, description="weight of the spatial modulators' distance (focal models)")
    gamma: float = Field(0.0, ge=0, description="weight of the temporal modulators' distance (focal models)")
    stages: list[int] = Field([-1], min_length=1, description="stages whose last block's modulators are compared")
    features: dict[str, str] = Field(
        default_factory=dict, description="layers that are compared, student's → teacher's, {stage4: stage4}"
    )
    feature_weight: float = Field(1.0, ge=0, description="weight of the features' distance")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the teacher; auto: bf16 on a GPU")
    cache: Path | None = Field(None, description="folder that keeps the teacher's logits for later epochs and students")
    cache_epochs: int = Field(1, ge=1, description="epochs with their own augmentation; then they come again")
    cache_classes: int = Field(32, ge=1, description="largest logits kept of each clip; the rest as their mean")

    @model_validator(mode="before")
    @classmethod
    def _earlier_forms(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("teacher"), str):
            values = {**values, "teacher": [values["teacher"]]}
        if isinstance(values, dict) and "form" in values:  # as files of earlier runs have it
            values = {"kl": values["form"], **{key: value for key, value in values.items() if key != "form"}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Distil:
        if self.teacher_weights is not None and len(self.teacher_weights) != len(self.teacher):
            raise ValueError(
                f"distil.teacher_weights has {len(self.teacher_weights)} numbers for {len(self.teacher)} teachers: "
                "give one each"
            )
        inside = bool(self.beta or self.gamma or self.features)
        if self.cache is not None and inside:
            raise ValueError("distil.cache keeps logits only: leave it out, or beta, gamma and features")
        if len(self.teacher) > 1 and inside:
            raise ValueError("distil.beta, gamma and features compare with one teacher: name one, or leave them out")
        if self.kl == "released" and (self.loss != "kl" or self.standardise):
            raise ValueError("distil.kl released goes with distil.loss kl alone")
        if self.standardise and self.loss == "dist":
            raise ValueError("distil.loss dist compares correlations, which distil.standardise leaves as they are")
        return self


class TokenLabels(Section):
    """Dense labels of every token from an annotation model (DualFormer's token labelling)."""

    annotator: Model = Field(Model(name="dualformer_base"), description="a trained model that labels tokens")
    gamma: float = Field(0.5, ge=0, le=1, description="share of the class loss; the tokens have the rest")
    top: int = Field(5, ge=1, description="classes that keep their logit")
    topk_only: bool = Field(False, description="the others get no probability, instead of e⁰ each as released")
    alignment: Literal["neighbours", "released"] = Field("neighbours", description="of time steps that are averaged")


class Run(Section):
    """One run: a recipe with its overrides resolved."""

    name: str = Field("run", description="folder under `out`")
    out: Path = Field(Path("runs"), description="folder of the run folders")
    seed: int = Field(0, ge=0, description="of the weights, the order, the augmentation and the division of the data")
    objective: Literal["recognise", "distil", "token_labels"] = Field(
        "recognise", description="the labels are learned, a teacher's outputs too, or labels of every token"
    )
    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    clip: Clip = Field(default_factory=Clip)
    augment: Augment = Field(default_factory=Augment)
    optim: Optim = Field(default_factory=Optim)
    train: Train = Field(default_factory=Train)
    test: Test = Field(default_factory=Test)
    multigrid: Multigrid = Field(default_factory=Multigrid)
    distil: Distil = Field(default_factory=Distil)
    token_labels: TokenLabels = Field(default_factory=TokenLabels)

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError("a run's name, which names its folder, begins with a letter or digit; . + - may follow")
        return name

    @model_validator(mode="after")
    def _sections_agree(self) -> Run:
        for contradictory, message in _contradictions(self):
            if contradictory:
                raise ValueError(message)
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _contradictions(run: Run) -> list[tuple[bool, str]]:
    """What sections of a run must not say together, and how to mend it. What a section alone is about it checks."""
    optim, train, distil, multigrid = run.optim, run.train, run.distil, run.multigrid
    scores = run.model.options.get("activation", "sigmoid")
    changing = multigrid.long or multigrid.short
    cannot_follow = "multigrid changes the batches of a run, which {} cannot follow: choose one"
    return [
        (
            optim.warmup_epochs > train.epochs,
            f"optim.warmup_epochs {optim.warmup_epochs:g} is longer than train.epochs {train.epochs}: "
            "lower the one or raise the other",
        ),
        (changing and train.ema is not None, cannot_follow.format("train.ema")),
        (changing and train.strategy == "fsdp", cannot_follow.format("train.strategy fsdp")),
        (changing and distil.cache is not None, cannot_follow.format("distil.cache")),
        (changing and train.accumulate > 1, cannot_follow.format("train.accumulate")),
        (
            run.objective == "distil" and not distil.teacher,
            "objective distil needs a teacher: --distil.teacher RUN_FOLDER_OR_FILE",
        ),
        (
            run.objective != "distil" and bool(distil.teacher),
            f"distil.teacher is given but the objective is {run.objective}: set --objective distil",
        ),
        (
            run.data.multi_label and run.objective != "recognise",
            f"objective {run.objective} compares softmaxes, which are for one class per video: take objective "
            "recognise, or leave data.multi_label out",
        ),
        (
            run.data.multi_label and scores != "sigmoid",
            f"data.multi_label makes the scores sigmoids, model.options.activation is {scores}: drop one",
        ),
    ]


# Runs that recipes start from, other than those of a recipe by itself, and the command that makes each.
MADE_BY = {"motion": 'vidstill train demo --name motion --train.epochs 24 --augment.scale "[0.7, 1.0]"'}


def missing_models(run: Run) -> str:
    """Of the models that this run starts or learns from the first that is not there, as an error message: a run with
    the command that makes it, a file of weights with what else can be given. Nothing where all are there."""
    for source in (run.model.weights, *run.distil.teacher, run.token_labels.annotator.weights):
        name = Path(source or "").name
        made = MADE_BY.get(name) or (f"vidstill train {name}" if name in recipe_names() else None)
        if made and not os.path.exists(os.path.expanduser(str(source))):  # noqa: PTH110, PTH111 - without a home too
            return f"{run.name} needs the run {source}, which is not there: make it with `{made}`, or name another"
    start = run.model.weights or ""
    is_name = "/" not in start and "." not in start  # of `vidstill weights`
    if not (is_name or start.startswith("hf:/")) and not os.path.exists(os.path.expanduser(start)):  # noqa: PTH110, PTH111
        return (
            f"{run.name} starts from the weights {start}, which are not there: put that file there, or give "
            "--model.weights FILE, or --model.weights null to start from random ones"
        )
    return ""


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def resolve(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> Run:
    """The run that a recipe (shipped name or YAML file) and dotted overrides (`--optim.lr 0.01`) describe.

    Raises ConfigError for an unknown recipe or key (with a suggestion), a wrong value, or values that contradict.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        path = _find(str(recipe))
        values = {"name": _folder_name(path.stem), **_read_recipe(path)}
    written, name = values.get("objective", "recognise"), values.get("name")
    put_all(values, overrides, Run)
    objective = values.get("objective", written)
    if objective != written and name is not None and "name" not in dict(split_overrides(overrides)):
        values["name"] = f"{name}-{objective}"  # the student's run is not the plain one
    return validate(values, str(recipe or "settings"))


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: a recipe is a text file in UTF-8, this is something else") from None
    loaded = parse_yaml(text, str(path)) or {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of settings, this is a {type(loaded).__name__}")
    return loaded


def _folder_name(stem: str) -> str:
    """The name of a run for the name of its recipe's file, which may have spaces and the like."""
    return re.sub(r"[^\w.+-]+", "-", stem).lstrip(".+-") or "run"


def validate(values: dict[str, Any], source: str) -> Run:
    """`values` as a Run, or a ConfigError of one line."""
    try:
        return Run.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None


def _find(recipe: str) -> Path:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"no recipe file {recipe}")
        return path
    if recipe in recipe_names():
        return RECIPES / f"{recipe}.yaml"
    raise ConfigError(f"no recipe {recipe!r}{_suggest(recipe, recipe_names())}; `vidstill recipes` lists them")


def _explain(error: ValidationError) -> str:
    """The first problem in one line: where, what was given, what is allowed."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {'.'.join(where)}{_suggest('.'.join(where), _keys(Run))}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict | BaseModel):  # of a whole section
        return message + more
    given = repr(problem["input"])
    shown = given if len(given) <= 100 else f"{given[:99]}…"
    return f"{'.'.join(where)} = {shown}: {message[0].lower()}{message[1:]}{more}"


def _keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys


def _suggest(given: str, allowed: Sequence[str]) -> str:
    """` (did you mean x?)`, matching the whole name or its last part."""
    leaves = {name.rsplit(".", 1)[-1]: name for name in reversed(allowed)}
    near = difflib.get_close_matches(given, allowed, 1, 0.6)
    near = near or [leaves[leaf] for leaf in difflib.get_close_matches(given.rsplit(".", 1)[-1], list(leaves), 1, 0.6)]
    return f" (did you mean {near[0]}?)" if near else ""

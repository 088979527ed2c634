"""What a run is: typed, two levels deep, read from YAML and dotted overrides."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

RECIPES = Path(__file__).parent / "recipes"

OnError = Literal["replace", "skip", "raise"]


class ConfigError(ValueError):
    """A recipe or an override that cannot be used: the message is one line and says how to mend it."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Data(Section):
    """Where the labelled videos are and how they are divided."""

    root: Path = Field(Path(), description="folder that the paths of the annotations are relative to")
    format: Literal["auto", "folders", "csv", "ucf101", "hmdb51", "kinetics", "synthetic"] = "auto"
    train: Path | None = Field(None, description="csv of the training videos")
    val: Path | None = Field(None, description="csv of the validation videos")
    test: Path | None = Field(None, description="csv of the test videos; the validation videos when absent")
    classes: str | None = Field(None, description="class list: a shipped one by name (ucf101) or a file")
    splits: Path | None = Field(None, description="folder of the official split files (ucf101, hmdb51)")
    fold: int = Field(1, ge=1, description="which official split, or which part is held out of a group split")
    split: Literal["stratified", "group"] = Field("stratified", description="how one folder is divided")
    group: str | None = Field(None, description="regular expression; its first group names the source of a path")
    folds: int = Field(5, ge=2, description="number of parts of a stratified or group split; one is validation")
    on_error: OnError = Field("replace", description="what to do with a video that does not decode")


class Model(Section):
    """Which network, from which weights."""

    name: str = "vfl_net"
    options: dict[str, Any] = Field(default_factory=dict, description="constructor overrides, e.g. {width: 32}")
    weights: str | None = Field(None, description="file, run folder or hf://owner/repo/file to start from")
    head: Literal["error", "fresh"] = Field("fresh", description="a classifier of another size: refuse or draw anew")


class Clip(Section):
    """What one input clip is; also what a model says of itself as `model.input`."""

    frames: int = Field(8, ge=1)
    interval: int = Field(4, ge=1, description="dense: frames between two samples; sparse: see Video-FocalNet §4")
    size: int = Field(224, ge=8, description="side of the square input, pixels")
    sampling: Literal["sparse", "dense"] = "sparse"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    seconds: float | None = Field(None, gt=0, description="usual length of the training videos; set by training")


class Augment(Section):
    """What training does to a clip. Probabilities are per clip."""

    crop: Literal["resized", "scaled"] = Field(
        "resized", description="a random share of the frame, or a window of clip.size in the frame at a random scale"
    )
    scales: tuple[int, int] = Field((256, 320), description="scaled: shortest and longest short side of the frame")
    inverse_scales: bool = Field(False, description="scaled: 1 / side is what is uniform")
    scale: tuple[float, float] = Field((0.08, 1.0), description="share of the frame that the random crop covers")
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(0.5, ge=0, le=1)
    jitter: float = Field(0.8, ge=0, le=1, description="probability of colour jitter")
    brightness: float = Field(0.4, ge=0)
    contrast: float = Field(0.4, ge=0)
    saturation: float = Field(0.2, ge=0)
    hue: float = Field(0.1, ge=0, le=0.5)
    jitter_per_frame: bool = Field(False, description="draw the jitter anew for every frame, as released")
    grey: float = Field(0.2, ge=0, le=1)
    randaugment: str | None = Field(None, description='e.g. "rand-m9-n2-mstd0.5-inc1"')
    erase: float = Field(0.0, ge=0, le=1, description="probability of random erasing")
    mixup: float = Field(0.8, ge=0, description="alpha of the Beta distribution; 0 switches mixup off")
    cutmix: float = Field(1.0, ge=0, description="alpha of the Beta distribution; 0 switches cutmix off")
    switch: float = Field(0.5, ge=0, le=1, description="probability of cutmix where both are on")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")


class Optim(Section):
    """Optimiser and schedule."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0, description="per `reference_batch` clips where that is given")
    reference_batch: int | None = Field(512, ge=1, description="rates are scaled by batch / this; null: no scaling")
    momentum: float = 0.9
    nesterov: bool = True
    dampening: float = Field(0, ge=0, le=1, description="of the momentum; 0 with nesterov")
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(1e-4, ge=0, description="not applied to what `spare` names")
    spare: Literal["vectors", "norms", "bn"] = Field(
        "vectors", description="biases and 1-D tensors; norms alone; or parameters with bn in their name (PySlowFast)"
    )
    schedule: Literal["cosine", "exact_cosine", "linear", "step", "steps", "constant"] = "cosine"
    milestones: list[float] = Field(default_factory=list, description="steps: epochs at which the next factor counts")
    factors: list[float] = Field(default_factory=list, description="steps: of the rate, from each milestone on")
    warmup_epochs: float = Field(0, ge=0)
    warmup_lr: float = Field(0.001, ge=0)
    warmup_prefix: bool = Field(False, description="count the schedule from the end of warm-up")
    min_lr: float = Field(0.001, ge=0)
    decay_epochs: float = Field(30, gt=0, description="step schedule")
    decay_rate: float = Field(0.1, gt=0, description="step schedule")
    clip_grad: float | None = Field(5.0, gt=0, description="largest gradient norm")


class Train(Section):
    """How the loop runs."""

    epochs: int = Field(120, ge=1)
    batch: int = Field(8, ge=1, description="clips per process and step")
    accumulate: int = Field(1, ge=1, description="steps per update")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the exponential moving average of the weights")
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a better top-1")
    devices: int = Field(1, ge=1, description="processes on this machine")
    nodes: int = Field(1, ge=1)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    workers: int | None = Field(None, ge=0, description="loader processes per training process; null: by the cores")
    start: Literal["fork", "spawn", "forkserver"] | None = Field(None, description="how loader processes start")
    precise_norms: int = Field(0, ge=0, description="batches that measure batch norms anew after every epoch")
    validate_every: int = Field(1, ge=1, description="epochs between validations; always after the last")
    save_every: int = Field(0, ge=0, description="steps between checkpoints inside an epoch; 0: only after epochs")


class Test(Section):
    """Views of one video in the final test."""

    clips: int = Field(4, ge=1)
    crops: Literal[1, 3] = 3
    random: bool = Field(False, description="random clips, seeded, as the released Video-FocalNet test")
    batch: int = Field(4, ge=1, description="videos per step")


class Multigrid(Section):
    """Smaller clips in larger batches, CVPR 2020: about as good in half the time or less."""

    long: bool = Field(False, description="from small clips to full ones in every interval of optim.milestones")
    short: bool = Field(False, description="three sizes in turn, step by step")
    epoch_factor: float = Field(1.5, gt=0, description="epochs, times those of the recipe")
    norm_batch: int = Field(8, ge=1, description="clips whose statistics batch norm sees, whatever the batch")


class Run(Section):
    """One run: a recipe with its overrides resolved."""

    name: str = Field("run", pattern=r"^[\w.+-]+$", description="folder under `out`")
    out: Path = Path("runs")
    seed: int = Field(0, ge=0)
    objective: Literal["recognise"] = "recognise"
    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    clip: Clip = Field(default_factory=Clip)
    augment: Augment = Field(default_factory=Augment)
    optim: Optim = Field(default_factory=Optim)
    train: Train = Field(default_factory=Train)
    test: Test = Field(default_factory=Test)
    multigrid: Multigrid = Field(default_factory=Multigrid)

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @model_validator(mode="after")
    def _consistent(self) -> Run:
        if self.optim.warmup_epochs > self.train.epochs:
            raise ValueError(
                f"optim.warmup_epochs {self.optim.warmup_epochs:g} is longer than train.epochs {self.train.epochs}: "
                "lower the one or raise the other"
            )
        if len(self.optim.factors) < len(self.optim.milestones):
            raise ValueError(
                f"optim.milestones has {len(self.optim.milestones)} epochs and optim.factors {len(self.optim.factors)} "
                "numbers: give each milestone its factor"
            )
        if self.optim.schedule == "steps" and self.optim.milestones[:1] != [0]:
            raise ValueError("optim.schedule steps needs optim.milestones that begin with 0, e.g. [0, 44, 88]")
        if self.optim.nesterov and self.optim.dampening:
            raise ValueError(f"optim.dampening {self.optim.dampening:g} and optim.nesterov exclude each other")
        if self.train.accelerator == "cpu" and self.train.precision == "fp16":
            raise ValueError("train.precision fp16 needs a GPU: with train.accelerator cpu use fp32 or bf16")
        if self.train.strategy == "fsdp" and self.train.ema is not None:
            raise ValueError("train.strategy fsdp shards the weights and train.ema keeps a whole copy: choose one")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: plain PyYAML reads `1e-4` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def resolve(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> Run:
    """The run that a recipe (shipped name or YAML file) and dotted overrides (`--optim.lr 0.01`) describe.

    Raises ConfigError for an unknown recipe or key (with a suggestion), a wrong value, or values that contradict.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        path = _find(str(recipe))
        loaded = parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: a recipe is a mapping of settings, this is a {type(loaded).__name__}")
        values = {"name": path.stem, **loaded}
    for key, value in _parse_overrides(overrides):
        _put(values, key, value)
    return validate(values, str(recipe or "settings"))


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


def _parse_overrides(tokens: Sequence[str]) -> list[tuple[str, Any]]:
    """`--a.b value` and `--a.b=value`; a flag without a value is true. Values are YAML."""
    pairs: list[tuple[str, Any]] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise ConfigError(f"unexpected argument {token!r}: settings are given as --section.key value")
        key, equals, text = token[2:].partition("=")
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        pairs.append((key.replace("-", "_"), parse_yaml(text, f"--{key}")))
    return pairs


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--{key}: {section} is a single setting, not a section")
    values[leaf] = value


def _explain(error: ValidationError) -> str:
    """The first problem in one line: where, what was given, what is allowed."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {'.'.join(where)}{_suggest('.'.join(where), _keys(Run))}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message + more
    return f"{'.'.join(where)} = {problem['input']!r}: {message[0].lower()}{message[1:]}{more}"


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

"""Every recipe and every documented training finds its videos in a data set that lies as its makers distribute it."""

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from vidstill import cli
from vidstill.config import Run, recipe_names, resolve
from vidstill.data.annotations import Annotations, find_problems, read_annotations
from vidstill.labels import class_names

DOCUMENTS = Path(__file__).parents[2]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def videos(*names: str) -> dict[str, str]:
    """Files that differ from each other; nothing here decodes them."""
    return {name: name for name in names}


def ucf101(root: Path) -> None:
    """UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip, unpacked in one folder."""
    names = class_names("ucf101")
    index = "".join(f"{number} {name}\r\n" for number, name in enumerate(names, 1))
    write(root, {"ucfTrainTestlist/classInd.txt": index})
    for fold, first in ((1, 8), (2, 1), (3, 1)):
        train = [f"{name}/v_{name}_g{first:02}_c01.avi" for name in names]
        test = [f"{name}/v_{name}_g{(1, 8, 15)[fold - 1]:02}_c01.avi" for name in names]
        write(root, {f"ucfTrainTestlist/testlist0{fold}.txt": "\r\n".join(test)})
        numbered = [f"{name} {number}" for number, name in enumerate(train, 1)]
        write(root, {f"ucfTrainTestlist/trainlist0{fold}.txt": "\r\n".join(numbered)})
        write(root, videos(*(f"UCF-101/{name}" for name in train + test)))


def hmdb51(root: Path) -> None:
    """The archives of hmdb51_org.rar, and test_train_splits.rar, unpacked in one folder."""
    for name in class_names("hmdb51"):
        files = [f"film{n}_{name}_f_cm_np1_ba_med_0.avi" for n in (1, 2, 3)]
        write(root, videos(*(f"{name}/{file}" for file in files)))
        text = "".join(f"{file} {use} \n" for file, use in zip(files, (1, 2, 0), strict=True))
        folder = "testTrainMulti_7030_splits"
        write(root, {f"{folder}/{name}_test_split{fold}.txt": text for fold in (1, 2, 3)})


def ucf50(root: Path) -> None:
    write(root, videos(*(f"{c}/v_{c}_g{g:02}_c01.avi" for c in class_names("ucf50") for g in range(1, 7))))


def kinetics(classes: str, folder: str, names: tuple[str, str, str], labelled: bool = True) -> Callable[[Path], None]:
    """Tables of ids, and videos named after them in a folder for each split."""

    def build(root: Path) -> None:
        for split, name in zip(("train", "val", "test"), names, strict=True):
            header = "label,youtube_id,time_start,time_end,split\n"
            lines = []
            for number, label in enumerate(class_names(classes)):
                clip = f"{split[:3]}{number:08}"
                lines.append(f'"{label}",{clip},5,15,{Path(name).stem}\n')
                write(root, videos(f"{split}/{clip}_000005_000015.mp4"))
            if split == "test" and not labelled:
                header, lines = header[6:], [line.split('",')[1] for line in lines]
            write(root, {f"{folder}{name}": header + "".join(lines)})

    return build


def pyslowfast_kinetics(classes: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for split in ("train", "val"):
            files = [f"{split}/{label.replace(' ', '_')}/1.mp4" for label in class_names(classes)]
            write(root, videos(*files))
            text = "".join(f"{file} {number}\n" for number, file in enumerate(files))
            write(root, {f"{split}.csv": text, **({"test.csv": text} if split == "val" else {})})

    return build


def class_folders(*classes: str, splits: tuple[str, ...] = ("train", "val"), each: int = 1) -> Callable[[Path], None]:
    names = [f"{split}/{name}/{n}.mp4" for split, name, n in product(splits, classes, range(each))]
    return lambda root: write(root, videos(*names))


def focalnet_lists(classes: str) -> Callable[[Path], None]:
    """train.csv and val.csv of the Video-FocalNets, path and id."""

    def build(root: Path) -> None:
        count = len(class_names(classes))
        for split in ("train", "val"):
            write(root, videos(*(f"{split}/{n}.mp4" for n in range(count))))
            write(root, {f"{split}.csv": "".join(f"{split}/{n}.mp4,{n}\n" for n in range(count))})

    return build


def jester(root: Path) -> None:
    """The lists of Efficient-3DCNNs beside the videos, each in a folder of its own."""
    names = sorted(class_names("jester"))
    index = "".join(f"{number} {name.replace(' ', '_')}\n" for number, name in enumerate(names, 1))
    lists = {f"annotation_Jester/{split}list.txt": "".join(f"{first + n} {n + 1}\n" for n in range(len(names)))
             for split, first in (("train", 100), ("val", 500))}  # fmt: skip
    clips = (f"20bn-jester/{first + n}/{first + n}.mp4" for first, n in product((100, 500), range(len(names))))
    write(root, {"annotation_Jester/classInd.txt": index, **lists, **videos(*clips)})


def something(root: Path) -> None:
    """The release of 2022: archives and labels.zip unpacked in one folder."""
    names = class_names("ssv2")
    for part, first in (("train", 100), ("validation", 500)):
        entries = [
            {"id": str(first + n), "label": "holding a cup", "template": re.sub("something", "[something]", name),
             "placeholders": ["a cup"]}
            for n, name in enumerate(names)
        ]  # fmt: skip
        write(root, {f"labels/{part}.json": json.dumps(entries)})
        write(root, videos(*(f"20bn-something-something-v2/{entry['id']}.webm" for entry in entries)))
    write(root, {"labels/labels.json": json.dumps({name: str(n) for n, name in enumerate(names)})})
    write(root, {"labels/test.json": '[{"id":"1420"}]', "labels/test-answers.csv": "1420;Throwing something\n"})


def activitynet(root: Path) -> None:
    database = {
        f"{part[0]}{n:010}": {"subset": part, "annotations": [{"segment": [1.5, 9.25], "label": name}]}
        for part in ("training", "validation")
        for n, name in enumerate(class_names("activitynet200"))
    }
    content = {"version": "VERSION 1.3", "taxonomy": [], "database": database}
    write(root, {"activity_net.v1-3.min.json": json.dumps(content)})
    write(root, videos(*(f"videos/v_{name}.mp4" for name in database)))


def diving48(root: Path) -> None:
    names = class_names("diving48")
    for part, first in (("train", 0), ("test", 100)):
        entries = [
            {"vid_name": f"-mmq0PT-u8k_{first + n:05}", "label": n, "start_frame": 0, "end_frame": 48 + n}
            for n in range(48)
        ]
        write(root, {f"Diving48_V2_{part}.json": json.dumps(entries)})
        write(root, videos(*(f"rgb/{entry['vid_name']}.mp4" for entry in entries)))
    write(root, {"Diving48_vocab.json": json.dumps([name.split("_") for name in names])})


def ut_interaction(root: Path) -> None:
    names = ("hand_shaking", "hugging", "kicking", "pointing", "punching", "pushing")
    write(root, videos(*(f"{name}/{s * 6 + n}_{s}_{n}.avi" for s in range(1, 11) for n, name in enumerate(names))))


# what a recipe's name begins with: how that data set comes, its classes and its splits
LAYOUTS: dict[str, tuple[list[Callable[[Path], None]], int, set[str]]] = {
    "ucf101": ([ucf101], 101, {"train", "test"}),
    "hmdb51": ([hmdb51], 51, {"train", "test"}),
    "ucf50": ([ucf50], 50, {"train", "val"}),
    "k400": (
        [
            kinetics("kinetics400", "annotations/", ("train.csv", "val.csv", "test.csv")),
            class_folders(*class_names("kinetics400")),
            pyslowfast_kinetics("kinetics400"),
        ],
        400,
        {"train", "val"},
    ),
    "k600": (
        [kinetics("kinetics600", "", ("train.csv", "validate.csv", "test.csv"), labelled=False)],
        600,
        {"train", "val"},
    ),
    "jester": ([jester], 27, {"train", "val"}),
    "ssv2": ([something, focalnet_lists("ssv2")], 174, {"train", "val"}),
    "diving48": ([diving48, focalnet_lists("diving48")], 48, {"train", "val"}),
    "activitynet": ([activitynet, focalnet_lists("activitynet200")], 200, {"train", "val"}),
    "ut_interaction": ([ut_interaction], 6, {"train", "val"}),
    "hockey_fights": ([class_folders("fight", "no_fight", splits=("train", "valid"))], 2, {"train", "val"}),
    "small_videos": ([ut_interaction], 6, {"train", "val"}),  # any class folders
    "demo": ([class_folders("grow", "shrink", splits=("train", "val", "test"))], 2, {"train", "val", "test"}),
}


def layouts(recipe: str) -> tuple[list[Callable[[Path], None]], int, set[str]]:
    return LAYOUTS[next(name for name in sorted(LAYOUTS, key=len, reverse=True) if recipe.startswith(name))]


def read(run: Run) -> Annotations:
    """The videos of a run; nothing is in the way of a training, and each lies where its list says."""
    annotations = read_annotations(run.data, run.seed)
    assert not [str(problem) for problem in find_problems(annotations) if problem.fatal]
    return annotations


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Path]:
    """Each layout is built once."""
    roots: dict[Any, Path] = {}

    def root(build: Callable[[Path], None]) -> Path:
        if build not in roots:
            roots[build] = tmp_path_factory.mktemp("made") / "set"
            build(roots[build])
        return roots[build]

    return root


def data_settings(recipe: str) -> str:
    return repr(resolve(recipe).data)


@pytest.mark.parametrize("recipe", {data_settings(name): name for name in reversed(recipe_names())}.values())
def test_recipes_of_every_data_set(
    recipe: str, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recipe for each way in which recipes describe their data."""
    monkeypatch.chdir(tmp_path)  # nothing is beside the working folder
    builds, classes, splits = layouts(recipe)
    for build in builds:
        annotations = read(resolve(recipe, ["--data.root", str(made(build))]))
        assert len(annotations.classes) == classes
        extra = {"test"} if build.__qualname__.startswith("pyslowfast") else set()
        assert set(annotations.splits) == ({"train", "test"} if build is diving48 else splits | extra)
        assert {s.label for s in annotations.splits["train"]} == set(range(classes))


def test_every_recipe_has_a_layout() -> None:
    for recipe in recipe_names():
        layouts(recipe)


def own(run: Run) -> Callable[[Path], None]:
    """A person's own videos, as the settings of a command want them."""

    def build(root: Path) -> None:
        names = [f"v_{name}_g{group:02}_c01.avi" for name in ("walk", "run") for group in range(1, 26)]
        if root.name.startswith("UCF11"):
            write(root, videos(*(re.sub(r"v_(.+)_g(\d+)_c.*", r"\1/v_\1_\2/v_\1_\2_01.mpg", name) for name in names)))
        elif root.suffix == ".csv":
            write(root.parent, {**videos(*names), root.name: "".join(f"{n},{n.split('_')[1]}\n" for n in names)})
        elif run.data.multi_label:
            lines = ["path,labels\n", *(f"{name},{'walk;run' if n % 3 else 'run'}\n" for n, name in enumerate(names))]
            write(root, {**videos(*names), "train.csv": "".join(lines)})
        else:
            write(root, videos(*(f"{name.split('_')[1]}/{name}" for name in names)))

    return build


def documented() -> Iterator[str]:
    """Training commands of the documents, and of the help of the verbs, with $own filled in."""
    texts = [inspect.getdoc(verb) or "" for verb in cli.VERBS.values()]
    for path in (DOCUMENTS / "README.md", *sorted((DOCUMENTS / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, value in re.findall(r'^(\w+)="([^"]*)"', text, re.M):
            text = text.replace(f"${name}", value)
        texts.append(text)
    for text in texts:
        for command in re.findall(r"(?:^|`)\s*(vidstill (?:train|distill) [a-z-][^`\n]*)", text, re.M):
            yield command.partition("  #")[0].strip()


@pytest.mark.parametrize("command", sorted(set(documented())))
def test_documented_trainings(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, verb, *arguments = shlex.split(command)
    recipe = arguments.pop(0) if not arguments[0].startswith("--") else None
    if verb == "distill" and "--teacher" not in arguments:
        arguments += ["--teacher", "runs/teacher"]
    own_names = {"--teacher": "--distil.teacher", "--teacher-recipe": "--distil.teacher_recipe"}
    settings = [own_names.get(word, word) for word in arguments]
    run = resolve(recipe, [*(["--objective", "distil"] if verb == "distill" else []), *settings])
    monkeypatch.chdir(tmp_path)
    mine = recipe is None or "--data.format" in settings
    (own(run) if mine else layouts(str(recipe))[0][0])(run.data.root)
    assert len(read(run).classes) == (2 if mine else layouts(str(recipe))[1])


def test_documented_trainings_are_found() -> None:
    assert len(set(documented())) > 10

"""Facts of made and real data sets against the files themselves: PyAV, the file system, plain counting."""

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import pytest

from vidstill.config import resolve
from vidstill.data.annotations import Sample
from vidstill.data.facts import data_facts, shared_sources


def run_of(root: Path, *more: str):
    return resolve(None, ["--data.root", str(root), *more])


def test_headers_sizes_and_counts_are_those_of_the_files(embedded: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(embedded, root)
    broken = root / "train" / "grow" / "broken.mp4"
    broken.write_bytes(b"no video")
    heard = []
    facts = data_facts(run_of(root), workers=2, report=heard.append)
    files = sorted(root.rglob("*.mp4"))
    assert facts.videos == facts.asked == len(files) == heard[-1]["done"] == heard[-1]["total"]
    assert facts.sizes == {path: path.stat().st_size for path in files}
    assert [video.path for video in facts.unreadable] == [broken]
    assert str(root) not in next(iter(facts.unreadable.values()))
    assert {video.path for video in facts.headers} == {*files} - {broken}
    for video, info in facts.headers.items():
        with av.open(str(video.path)) as container:
            frames = [*container.decode(video=0)]
        assert (info.frames, info.width, info.height) == (len(frames), frames[0].width, frames[0].height)
    counts = facts.class_counts()
    for split in ("train", "val", "test"):
        by_folder = Counter(path.parent.name for path in (root / split).rglob("*.mp4"))
        assert counts[split] == [by_folder[name] for name in facts.annotations.classes]


def test_a_sample_is_spread_over_the_lists(embedded: Path) -> None:
    facts = data_facts(run_of(embedded), sample=4, workers=1)
    assert facts.asked == len(facts.headers) == 4 < facts.videos
    listed = [sample.video for samples in facts.annotations.splits.values() for sample in samples]
    places = [listed.index(video) for video in facts.headers]
    assert places[0] == 0 and places[-1] == len(listed) - 1
    assert max(b - a for a, b in pairwise(places)) <= len(listed) / 3 + 1
    with pytest.raises(ValueError, match="0 for all"):
        data_facts(run_of(embedded), sample=-1)


def test_what_division_by_source_would_do(tmp_path: Path) -> None:
    """Twelve videos of six sources, cut by video: the same cut by source is foretold, and is what the setting makes."""
    names = [f"{c}/v_{c}_g{g:02}_c{n:02}.avi" for c in ("walk", "run") for g in (1, 2, 3) for n in (1, 2)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    facts = data_facts(run_of(tmp_path, "--data.folds", "3"), sample=1, workers=1)
    cut = data_facts(run_of(tmp_path, "--data.folds", "3", "--data.split", "group"), sample=1, workers=1)
    assert facts.sources == dict.fromkeys((f"{c}/g{g:02}" for c in ("walk", "run") for g in (1, 2, 3)), 2)
    assert facts.grouped == {split: len(samples) for split, samples in cut.annotations.splits.items()}
    assert cut.grouped is None
    splits = cut.annotations.splits
    assert shared_sources(splits["val"], splits["train"]) == 0


def test_shared_sources() -> None:
    def of(*groups: str | None) -> list[Sample]:
        return [Sample(Path(f"{n}.mp4"), 0, group=group) for n, group in enumerate(groups)]

    assert shared_sources(of("a", "a", "b", None), of("a", "c", None)) == 1
    assert shared_sources(of(None), of(None)) == 0


def test_of_videos_with_several_classes_each_counts(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path,labels\na.mp4,walk;wave\nb.mp4,wave\n")
    facts = data_facts(run_of(tmp_path, "--data.multi_label", "true"), workers=1)
    assert facts.annotations.classes == ["walk", "wave"] and facts.class_counts() == {"train": [1, 2]}
    assert facts.videos == 2 and not facts.sizes and len(facts.unreadable) == 2, "which are not there"

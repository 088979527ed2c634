"""Predictions: a file that reads back as it was written, one line that tells the result, averages of several."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidstill.data.annotations import Sample
from vidstill.evaluation import predictions
from vidstill.evaluation.predictions import Evaluation, ensemble, read_predictions, write_predictions


def test_a_long_list_of_broken_videos_is_cut_in_the_summary() -> None:
    scores = np.array([[0.9, 0.1]], np.float32)
    scored = Evaluation(["a", "b"], [Sample(Path("a.mp4"), 0)], scores, [("x", "x: bad")] * 50)
    assert len(scored.summary().splitlines()) == 2 + predictions.NAMED_AT_MOST + 1
    assert "and 30 more" in scored.summary()


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(st.lists(WORDS, min_size=2, max_size=6, unique=True), st.lists(WORDS, max_size=5), st.integers(0, 1000))
def test_predictions_are_read_back_as_they_were_written(classes: list[str], files: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = [Sample(Path(name), int(rng.integers(len(classes)))) for name in files]
    scores = rng.dirichlet(np.ones(len(classes)), len(files)).astype(np.float32)
    written = Evaluation(classes, samples, scores)
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder, "predictions.csv"), written)
        back = read_predictions(Path(folder, "predictions.csv"))
    assert back.classes == classes
    assert back.samples == samples
    np.testing.assert_array_equal(back.probabilities, scores)


def test_the_file_has_the_answer_before_the_scores(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    scores = np.array([[0.25, 0.75], [1, 0]], np.float32)
    samples = [Sample(Path("v/x.mp4"), 0), Sample(Path("y\udcff.mp4"), 0)]
    write_predictions(path, Evaluation(["left", "a, b"], samples, scores))
    lines = path.read_bytes().splitlines()
    assert lines == [
        b'path,label,predicted,score,left,"a, b"',
        b'v/x.mp4,left,"a, b",0.75,0.25,0.75',
        b"y\xff.mp4,left,left,1.0,1.0,0.0",
    ]
    assert list(tmp_path.iterdir()) == [path]
    assert read_predictions(path).paths[1] == Path("y\udcff.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\nx,y\n",
        "path,label,predicted,score,a,b\nx,c,a,1,1,0\n",
        "path,label,predicted,score,a,b\nx,a,a,1,1\n",
        "path,label,predicted,score,a,b\nx,a,a,1,one,0\n",
    ],
)
def test_another_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"holds no predictions") as caught:
        read_predictions(path)
    assert "\n" not in str(caught.value)


def test_an_ensemble_is_the_weighted_mean_whatever_the_order_of_the_videos():
    names, samples = ["a", "b"], [Sample(Path("x"), 0), Sample(Path("y"), 1)]
    one = Evaluation(names, samples, np.array([[0.9, 0.1], [0.6, 0.4]], dtype=np.float32))
    other = Evaluation(names, samples[::-1], np.array([[0.2, 0.8], [0.5, 0.5]], dtype=np.float32))
    both = ensemble([one, other], [1, 3])
    np.testing.assert_allclose(both.probabilities, [[0.6, 0.4], [0.3, 0.7]], rtol=1e-6)
    assert both.metrics.top1 == 1 and one.metrics.top1 == 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"classes": ["a", "c"]}, "other classes"), ({"samples": [Sample(Path("x"), 1)]}, "other videos or labels")],
)
def test_different_tests_are_not_averaged(changed, message):
    one = Evaluation(["a", "b"], [Sample(Path("x"), 0)], np.array([[0.9, 0.1]], dtype=np.float32))
    with pytest.raises(ValueError, match=message):
        ensemble([one, dataclasses.replace(one, **changed)])
    with pytest.raises(ValueError, match="give one each"):
        ensemble([one], [1, 2])


def several(names: str = "ab") -> Evaluation:
    samples = [Sample(Path("x.mp4"), 1, more=(0,)), Sample(Path("y.mp4"), 0), Sample(Path("z.mp4"), 1)]
    scores = np.array([[0.9, 0.8], [0.7, 0.6], [0.1, 0.4]], dtype=np.float32)
    return Evaluation(list(names), samples, scores, multi_label=True)


def test_predictions_of_videos_with_several_classes_survive(tmp_path: Path) -> None:
    """AP of a: 1; of b: (1 + 2/3) / 2."""
    scored = several()
    assert scored.summary().splitlines() == [
        "mAP 91.7 % on 3 videos", "a random order has about 66.7 %", "weakest average precision: b 83 % of 2",
    ]  # fmt: skip
    write_predictions(tmp_path / "p.csv", scored)
    header, first, *_ = (tmp_path / "p.csv").read_text().splitlines()
    assert header == "path,labels,predicted,score,a,b" and first == "x.mp4,b;a,a,0.9,0.9,0.8"
    back = read_predictions(tmp_path / "p.csv")
    assert back.samples == scored.samples and back.multi_label
    assert back.metrics == scored.metrics
    both = ensemble([back, scored])
    assert both.multi_label and both.summary() == scored.summary()
    with pytest.raises(ValueError, match="other videos or labels"):
        ensemble([scored, dataclasses.replace(scored, multi_label=False)])


def test_a_summary_says_what_the_figure_is_worth_and_where_it_fails() -> None:
    """20 videos of three classes: a right 8 of 10, taken for b; b right 1 of 2, taken for c; c always right."""
    said = [0] * 8 + [1] * 2 + [1, 2] + [2] * 8
    labels = [0] * 10 + [1] * 2 + [2] * 8
    samples = [Sample(Path(f"{n}.mp4"), label) for n, label in enumerate(labels)]
    scored = Evaluation(["a", "b", "c"], samples, np.eye(3, dtype=np.float32)[said])
    first, second, *others = scored.summary("test", "4 × 3 views each").splitlines()
    # Newcombe, Statistics in Medicine 17 (1998): the roots of (p - 0.85)² = 1.96² p (1 - p) / 20
    low, high = sorted(np.roots([1 + 1.96**2 / 20, -(2 * 0.85 + 1.96**2 / 20), 0.85**2]))
    interval = f"95 % interval {100 * low:.1f}–{100 * high:.1f} %"
    assert first == f"top-1 85.0 % ({interval}) on 20 test videos, 4 × 3 views each"
    assert second.startswith("mean class 76.7 %  calibration error 15.0 %")
    assert others == ["weakest: b 50 % of 2", "most confused: a taken for b (2 of 10), b taken for c (1 of 2)"]

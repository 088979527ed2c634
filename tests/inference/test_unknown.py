"""None of these: what the fitted score means, by counting, and what is said without one."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.annotations import Sample
from vidstill.evaluation.metrics import lowest_right_score
from vidstill.evaluation.predictions import Evaluation
from vidstill.inference.predictor import Prediction, Predictor, WindowScores, rank
from vidstill.inference.unknown import NONE, lowest_score
from vidstill.models.registry import create_model
from vidstill.models.weights import save


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60), st.sampled_from([0.0, 0.05, 0.3]))
def test_no_higher_score_misses_as_few(videos: list[tuple[int, bool]], missed: float) -> None:
    """By trying every score."""
    scores = np.array([[best / 40 + 0.5, 0.5 - best / 40] for best, _ in videos]).reshape(-1, 2)
    right = np.array([own for _, own in videos], dtype=bool)
    best = [score for score, own in zip(scores[:, 0], right, strict=True) if own] if len(videos) else []
    found = lowest_right_score(scores, right, missed) if len(videos) else None
    if not best:
        assert found is None
        return
    allowed = [score for score in best if sum(each < score for each in best) <= missed * len(best) + 1e-9]
    assert found == max(allowed)


def test_of_twenty_right_videos_one_may_score_less() -> None:
    samples = [Sample(Path(str(n)), 0) for n in range(23)]
    best = [0.5 + n / 100 for n in range(20)]
    scores = np.array([[score, 1 - score] for score in best] + [[0.1, 0.9]] * 3, np.float32)
    fitted = Evaluation(["a", "b"], samples, scores).none_below
    assert fitted == {"none_below": pytest.approx(0.51), "none_below_videos": 20}
    assert Evaluation(["a", "b"], samples[20:], scores[20:]).none_below == {}


def test_of_a_video_with_several_classes_any_is_right() -> None:
    samples = [Sample(Path("x"), 0, more=(2,)), Sample(Path("y"), 0, more=(1,))]
    scores = np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.9]], np.float32)
    fitted = Evaluation(["a", "b", "c"], samples, scores, multi_label=True).none_below
    assert fitted == {"none_below": pytest.approx(0.7), "none_below_videos": 1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 7), st.none() | st.floats(0, 1))
def test_none_comes_first_where_the_best_scores_too_little(scores: list[float], k: int, least: float | None) -> None:
    classes = [f"c{n}" for n in range(len(scores))]
    plain, ranked = rank(np.array(scores), classes, k), rank(np.array(scores), classes, k, least)
    if least is None or max(scores) >= least:
        assert ranked == plain
    else:
        assert ranked[0][0] == NONE and np.isnan(ranked[0][1]) and ranked[1:] == plain[: k - 1]


def test_windows_and_videos_are_labelled_by_themselves() -> None:
    windows = [WindowScores(n, n + 1, np.array([score, 1 - score])) for n, score in enumerate((0.9, 0.55))]
    prediction = Prediction("x", ["a", "b"], windows, 12.345, none_below=0.7)
    told = prediction.to_dict(1)
    assert prediction.label == told["label"] == "a" and told["none_below"] == 0.7
    assert [window["label"] for window in told["windows"]] == ["a", NONE]
    assert told["windows"][1]["top"] == [{"class": "a", "score": 0.55}], "the scores are there all the same"
    assert told["processing_speed"] == 12.35 or told["processing_speed"] == 12.34
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(("given_score", "expected"), [(None, None), (0.4, 0.4), ("0.25", 0.25), (0, 0.0), ("1", 1.0)])
def test_a_number_is_taken(given_score: Any, expected: float | None) -> None:
    assert lowest_score(given_score, "nowhere") == expected


@pytest.mark.parametrize("given_score", [-0.1, 1.5, 40, "x", "nan", float("nan")])
def test_what_is_no_score_is_refused(given_score: Any) -> None:
    with pytest.raises(ValueError, match="give a score between 0 and 1, or auto"):
        lowest_score(given_score, "nowhere")


@pytest.mark.parametrize(
    "metrics", [None, {}, {"none_below": "0.4", "none_below_videos": 3}, {"none_below": 0.4}, [1],
                {"none_below": float("inf"), "none_below_videos": 3}],
)  # fmt: skip
def test_without_a_fitted_score_a_number_is_asked_for(metrics: Any, tmp_path: Path) -> None:
    model = create_model("vfl_net", 2, width=8)
    model.classes = ["a", "b"]
    save(model, tmp_path / "best")
    about = json.loads((tmp_path / "best.json").read_text())
    (tmp_path / "best.json").write_text(json.dumps({**about, "metrics": metrics}))
    with pytest.raises(ValueError, match=r"no score that was fitted .*: give a number"):
        Predictor(tmp_path, none_below="auto")
    with pytest.raises(ValueError, match=r"vfl_net is no run folder or model file"):
        Predictor(model, none_below="auto")


def test_the_fitted_score_is_read_with_what_it_rests_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = create_model("vfl_net", 2, width=8)
    model.classes = ["a", "b"]
    save(model, tmp_path / "best", metrics={"none_below": 0.62, "none_below_videos": 37.0})
    with caplog.at_level(logging.INFO):
        assert Predictor(tmp_path, none_below="auto").none_below == 0.62
    assert "below 62.0 %, as 5 % of the 37 rightly labelled validation videos" in caplog.text

"""A test of many views: each video once, the right views, the right score, nothing lost."""

import os
import pickle
import signal
import socket
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from vidstill.config import Clip
from vidstill.data.annotations import Sample
from vidstill.data.transforms import normalise
from vidstill.data.views import test_clips
from vidstill.evaluation import engine, testing
from vidstill.evaluation.testing import evaluate
from vidstill.models.registry import VideoModel, create_model
from vidstill.video.decode import VideoError

CLIP = Clip(frames=4, size=32, interval=2)


def small_model() -> VideoModel:
    torch.manual_seed(0)
    model = create_model("vfl_net", num_classes=10, width=8)
    torch.nn.init.normal_(model.get_submodule("head").weight)  # type: ignore[arg-type]  # clearly different scores
    model.classes, model.input = [f"class {number}" for number in range(10)], CLIP
    return model.eval()


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return small_model()


@pytest.fixture(scope="module")
def samples(embedded: Path) -> list[Sample]:
    return [Sample(path, number % 10) for number, path in enumerate(sorted(embedded.rglob("*.mp4"))[:7])]


@pytest.fixture
def with_broken(samples: list[Sample], tmp_path: Path) -> list[Sample]:
    """A text file second and a missing file last."""
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    return [samples[0], Sample(text, 1), *samples[1:3], Sample(tmp_path / "missing.mp4", 2)]


@torch.no_grad()
def scores_one_by_one(model: VideoModel, samples: list[Sample], clips: int, crops: int) -> np.ndarray:
    """Probabilities from a loop over videos and views."""
    rows = []
    for sample in samples:
        probabilities = []
        for view in test_clips(sample.path, CLIP, clips, crops):
            logits = model(normalise(torch.from_numpy(view)[None], CLIP.mean, CLIP.std))[0].double().numpy()
            e = np.exp(logits - logits.max())
            probabilities.append(e / e.sum())
        rows.append(np.mean(probabilities, axis=0))
    return np.array(rows)


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (2, 3)])
def test_scores_are_those_of_a_loop(model: VideoModel, samples: list[Sample], clips: int, crops: int) -> None:
    scored = evaluate(model, samples, clips=clips, crops=crops, batch=3)
    np.testing.assert_allclose(
        scored.probabilities, scores_one_by_one(model, samples, clips, crops), rtol=1e-4, atol=1e-6
    )
    assert scored.probabilities.dtype == np.float32
    assert scored.paths == [sample.path for sample in samples]
    assert scored.labels.tolist() == [sample.label for sample in samples]
    assert scored.classes == model.classes
    assert scored.unreadable == []


def test_each_video_is_read_in_one_pass(model: VideoModel, samples: list[Sample]) -> None:
    evaluate(model, samples, clips=1, crops=1)  # from here on, what the files hold is known
    with mock.patch.object(av, "open", wraps=av.open) as opened:
        evaluate(model, samples, clips=4, crops=3)
    assert opened.call_count == len(samples)


@pytest.mark.parametrize(("batch", "workers", "start"), [(1, 0, None), (7, 0, None), (2, 1, "fork"), (3, 2, "fork")])
def test_batches_and_processes_change_nothing(
    model: VideoModel, samples: list[Sample], batch: int, workers: int, start: str | None
) -> None:
    expected = evaluate(model, samples, clips=2, crops=1, batch=4)
    scored = evaluate(model, samples, clips=2, crops=1, batch=batch, workers=workers, start=start)
    np.testing.assert_allclose(scored.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
    assert scored.paths == expected.paths


@pytest.mark.slow  # starts Python anew
def test_spawned_processes_change_nothing(model: VideoModel, samples: list[Sample]) -> None:
    expected = evaluate(model, samples, clips=2, crops=1)
    scored = evaluate(model, samples, clips=2, crops=1, workers=1, start="spawn")
    np.testing.assert_array_equal(scored.probabilities, expected.probabilities)


def test_views_go_through_the_model_a_few_at_a_time(
    model: VideoModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(model, samples[:2], clips=4, crops=3)
    monkeypatch.setattr(engine, "VIEWS_AT_ONCE_ON_CPU", 5)
    sizes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    scored = evaluate(model, samples[:2], clips=4, crops=3)
    handle.remove()
    assert sizes == [5, 5, 2] * 2, "a video at a time where that is enough"
    np.testing.assert_allclose(scored.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)


def test_random_clips_depend_on_the_seed_and_the_place_in_the_list(model: VideoModel, samples: list[Sample]) -> None:
    first, again, other, even = (
        evaluate(model, samples, clips=2, crops=1, seed=seed, batch=batch).probabilities
        for seed, batch in ((5, 4), (5, 1), (6, 4), (None, 4))
    )
    np.testing.assert_allclose(first, again, rtol=1e-4, atol=1e-6)
    assert abs(first - other).max() > 1e-3
    assert abs(first - even).max() > 1e-3


def test_another_clip_than_the_model_says(model: VideoModel, samples: list[Sample]) -> None:
    longer = CLIP.model_copy(update={"frames": 6})
    shapes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    evaluate(model, samples[:1], clip=longer, clips=1, crops=1)
    handle.remove()
    assert shapes == [(1, 3, 6, 32, 32)]


def test_broken_videos_are_named_and_never_replaced(model: VideoModel, with_broken: list[Sample]) -> None:
    scored = evaluate(model, with_broken, clips=1, crops=1, batch=2)
    assert scored.paths == [with_broken[n].path for n in (0, 2, 3)]
    assert [path for path, _ in scored.unreadable] == [str(with_broken[n].path) for n in (1, 4)]
    assert all(path in reason for path, reason in scored.unreadable)
    summary = scored.summary()
    assert "3 videos, 2 unreadable left out" in summary
    assert summary.count("unreadable: ") == 2
    kept = evaluate(model, [with_broken[n] for n in (0, 2, 3)], clips=1, crops=1)
    np.testing.assert_allclose(scored.probabilities, kept.probabilities, rtol=1e-4, atol=1e-6)


def test_the_first_broken_video_stops_where_asked(model: VideoModel, with_broken: list[Sample]) -> None:
    with pytest.raises(VideoError, match=r"text\.mp4"):
        evaluate(model, with_broken, clips=1, crops=1, on_error="raise")


def test_nothing_readable_is_an_error(model: VideoModel, with_broken: list[Sample]) -> None:
    with pytest.raises(ValueError, match=r"none of the 2 test videos is readable, the first: .*text\.mp4"):
        evaluate(model, [with_broken[1], with_broken[4]], clips=1, crops=1)
    with pytest.raises(ValueError, match="none of the 0 test videos"):
        evaluate(model, [], clips=1, crops=1)


def test_a_model_in_training_goes_on_training(samples: list[Sample]) -> None:
    model = small_model().train()
    modes = []
    model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    evaluate(model, samples[:2], clips=1, crops=1)
    assert modes == [False]
    assert model.training
    with pytest.raises(ValueError, match="none of the 0"):
        evaluate(model, [], clips=1, crops=1)
    assert model.training


def test_progress_counts_every_video_once(model: VideoModel, with_broken: list[Sample]) -> None:
    events: list[dict[str, object]] = []
    evaluate(model, with_broken, clips=1, crops=1, batch=2, report=events.append)
    assert [event["done"] for event in events] == [2, 4, 5]
    assert {event["total"] for event in events} == {5}


def test_a_killed_loader_process_ends_in_one_line(
    model: VideoModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "read_views", lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ValueError, match="loader process was killed"):
        evaluate(model, samples, clips=1, crops=1, workers=1, start="fork")


def one_rank(rank: int, port: int, samples: list[Sample], folder: Path) -> None:
    """A process of two: evaluates, with and without stopping at a broken video, and leaves what it got in `folder`."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    model, own = small_model(), []
    model.register_forward_pre_hook(lambda module, inputs: own.append(len(inputs[0])))
    result = evaluate(model, samples, clips=2, crops=1, batch=2, fabric=fabric)
    scored = sum(own) // 2
    with pytest.raises(VideoError) as caught:
        evaluate(model, samples, clips=2, crops=1, batch=2, fabric=fabric, on_error="raise")
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps((result, scored, str(caught.value))))


@pytest.mark.slow  # starts two processes
def test_two_processes_share_the_videos_and_both_get_the_whole(
    model: VideoModel, with_broken: list[Sample], samples: list[Sample], tmp_path: Path
) -> None:
    videos = [*with_broken, *samples[3:]]
    expected = evaluate(model, videos, clips=2, crops=1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_rank, (port, videos, tmp_path), nprocs=2)
    ranks = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]
    for result, _, error in ranks:
        assert result.paths == expected.paths
        assert result.unreadable == expected.unreadable
        np.testing.assert_allclose(result.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
        assert "text.mp4" in error, "a rank that stops must not leave the other waiting"
    assert [scored for _, scored, _ in ranks] == [4, 3], "of 9 videos, the broken ones at places 1 and 4"


@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_views_of_a_multi_label_model_are_fused_as_sigmoids(
    model: VideoModel, samples: list[Sample], fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "activation", "sigmoid")
    logits = []
    with torch.inference_mode():
        for sample in samples[:3]:
            views = torch.from_numpy(test_clips(sample.path, model.input, 2, 3))
            logits.append(model(normalise(views, model.input.mean, model.input.std)).double())
    each = 1 / (1 + torch.exp(-torch.stack(logits)))
    expected = each.mean(1) if fusion == "sum" else each.max(1).values
    scored = evaluate(model, samples[:3], clips=2, crops=3, ensemble=fusion, multi_label=True)
    np.testing.assert_allclose(scored.probabilities, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert scored.multi_label and "mAP" in scored.summary()

"""Boxes, views and colour against plain formulas and PIL; whole samples against a plain decode of made videos."""

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from vidstill.config import Augment, Clip
from vidstill.data import sampling, transforms, views
from vidstill.video.decode import FramesMissing, VideoError

PLAIN = Augment(flip=0, jitter=0, grey=0)
FRAMES, HEIGHT, WIDTH = 30, 72, 104


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Blobs of light with less colour than light, and some grain, (H,W,3): more like a photograph than noise is."""
    rng = np.random.RandomState(seed)
    light, colour = rng.uniform(30, 220, (5, 6, 1)), rng.uniform(-35, 35, (5, 6, 3))
    blobs = cv2.resize(light + colour, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(blobs + rng.normal(0, 6, blobs.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames 104x72 of a picture that moves to the right by three pixels a frame."""
    path = tmp_path_factory.mktemp("made") / "moving.mp4"
    wide = picture(0, HEIGHT, WIDTH + 3 * FRAMES)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            x = 3 * (FRAMES - i)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, x : x + WIDTH]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


class TestBoxes:
    @given(st.integers(8, 400), st.integers(8, 400), st.integers(0, 999))
    def test_crop_lies_in_the_frame_with_the_share_and_ratio_asked_for(self, height, width, seed):
        scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
        x1, y1, x2, y2 = transforms.random_resized_crop(height, width, scale, ratio, rng(seed), random.Random(seed))
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        w, h = x2 - x1, y2 - y1
        if (w, h) != (min(height, width),) * 2:
            assert (w - 0.5) * (h - 0.5) <= height * width * scale[1]
            assert (w + 0.5) * (h + 0.5) >= height * width * scale[0]
            assert (w + 0.5) / (h - 0.5) >= ratio[0] and (w - 0.5) / (h + 0.5) <= ratio[1]

    def test_crop_that_never_fits_is_the_centred_square(self):
        box = transforms.random_resized_crop(10, 90, (0.9, 1), (1, 1), rng(), random.Random(0))
        assert box == (40, 0, 50, 10)

    def test_multiscale_squares_have_the_five_sides_and_lie_anywhere(self):
        boxes = np.array([transforms.multiscale_crop(100, 160, rng(seed)) for seed in range(600)])
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides[:, 0] == sides[:, 1]).all() and boxes.min() >= 0
        found, counts = np.unique(sides[:, 0], return_counts=True)
        assert found.tolist() == [50, 59, 70, 84, 100] and counts.min() > 80
        half = boxes[sides[:, 0] == 50]
        assert half[:, 0].min() < 8 and half[:, 2].max() > 152, "along the whole width"
        assert half[:, 1].min() < 5 and half[:, 3].max() > 95

    @given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300), st.integers(1, 600), st.integers(1, 600))
    def test_rescaled_box_lies_in_the_other_frame(self, height, width, seed, new_height, new_width):
        box = transforms.random_resized_crop(height, width, (0.08, 1), (0.75, 4 / 3), rng(seed), random.Random(seed))
        info = SimpleNamespace(height=new_height, width=new_width)
        x1, y1, x2, y2 = transforms._source_box(box, height, width, info)
        assert 0 <= x1 < x2 <= new_width and 0 <= y1 < y2 <= new_height
        for new, old, scale in zip((x1, y1, x2, y2), box, (new_width / width, new_height / height) * 2, strict=True):
            assert abs(new - old * scale) <= 1.5  # half by rounding, and 1 where the box would be empty

    def test_short_side(self):
        assert transforms.short_side_size(240, 320, 256) == (256, 341)
        assert transforms.short_side_size(120, 90, 58) == (77, 58)
        assert transforms.margin_size(224) == 256
        assert transforms.margin_size(112) == 128

    @given(st.integers(1, 64), st.integers(0, 80), st.booleans())
    def test_three_views_are_the_ends_and_the_middle_of_the_long_side(self, size, longer, upright):
        height, width = (size + longer, size) if upright else (size, size + longer)
        boxes = views.view_boxes(height, width, size, 3)
        offsets = [box[1] if upright else box[0] for box in boxes]
        assert offsets == [0, 2 * (longer // 2), longer // 2]
        for x1, y1, x2, y2 in boxes:
            assert (x2 - x1, y2 - y1) == (size, size) and min(x1, y1) >= 0 and x2 <= width and y2 <= height
        assert views.view_boxes(height, width, size, 1) == [boxes[2]]

    def test_impossible_views_are_refused(self):
        with pytest.raises(ValueError, match="take 1 or 3"):
            views.view_boxes(64, 64, 32, 2)
        with pytest.raises(ValueError, match="resize it first"):
            views.view_boxes(64, 30, 32, 1)


class TestNormalise:
    def test_formula_and_layout(self):
        clips = torch.from_numpy(rng().randint(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8))
        mean, std = Clip().mean, Clip().std
        values = transforms.normalise(clips, mean, std)
        expected = ((clips.numpy().astype(np.float64) - mean) / std).transpose(0, 4, 1, 2, 3)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert values.dtype == torch.float32
        assert values.permute(0, 2, 3, 4, 1).is_contiguous()

    def test_any_layout_of_the_input(self):
        clips = torch.from_numpy(rng().randint(0, 256, (2, 3, 5, 14, 3), dtype=np.uint8))[:, :, :, ::2]
        values = transforms.normalise(clips, (0, 0, 0), (1, 2, 4))
        np.testing.assert_array_equal(values[:, 2], clips[..., 2] / 4)


class TestColour:
    """Against PIL, which torchvision's jitter of PIL images is made of."""

    @pytest.mark.parametrize(
        ("name", "values", "most"),
        # A quarter to half a level is rounding: PIL truncates.
        [("brightness", (0.6, 1.4), 0.7), ("contrast", (0.6, 1.4), 0.7), ("saturation", (0.8, 1.2), 0.7)],
    )
    def test_single_steps_equal_pil(self, name, values, most):
        enhance = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast}
        for seed, value in enumerate(np.linspace(*values, 9)):
            image = picture(seed)
            matrix = transforms.colour_matrix(cv2.mean(image)[:3], [(name, value)])
            expected = enhance.get(name, ImageEnhance.Color)(Image.fromarray(image)).enhance(value)
            difference = np.abs(cv2.transform(image, matrix).astype(int) - np.asarray(expected))
            assert difference.mean() < most and difference.max() <= 1

    def test_random_jitter_is_near_pil(self):
        """Different hue spaces and late clamping: a few levels, against the 27 that the jitter itself moves."""
        apart, moved = [], []
        for seed in range(40):
            image = picture(seed)
            steps = transforms._draw_jitter(Augment(), rng(seed))
            expected = pil_jitter(image, steps)
            jittered = cv2.transform(image, transforms.colour_matrix(cv2.mean(image)[:3], steps))
            apart.append(np.abs(jittered.astype(int) - expected).mean())
            moved.append(np.abs(image.astype(int) - expected).mean())
        assert np.mean(apart) < 5 < 20 < np.mean(moved)

    def test_hue_turns_the_same_way_as_hsv_and_keeps_luma(self):
        for value in (-0.1, -0.05, 0.05, 0.1):
            image = picture(1) // 2 + 64  # away from clamping
            turned = cv2.transform(image, transforms.colour_matrix((0, 0, 0), [("hue", value)]))
            expected, opposite = pil_jitter(image, [("hue", value)]), pil_jitter(image, [("hue", -value)])
            near, far = (np.abs(turned.astype(int) - other).mean() for other in (expected, opposite))
            assert near < far / 2
            assert np.abs((turned - image.astype(float)) @ transforms.LUMA).max() < 1.5

    def test_full_turn_of_hue_is_nothing(self):
        np.testing.assert_allclose(transforms.colour_matrix((0, 0, 0), [("hue", 1.0)]), np.eye(3, 4), atol=1e-9)

    def test_contrast_keeps_the_mean_that_earlier_steps_made(self):
        image = picture(2)
        matrix = transforms.colour_matrix(cv2.mean(image)[:3], [("brightness", 0.5), ("contrast", 0.2)])
        assert (
            abs(
                cv2.transform(image, matrix).mean(axis=(0, 1)) @ transforms.LUMA
                - 0.5 * image.mean((0, 1)) @ transforms.LUMA
            )
            < 1
        )

    def test_grey_is_601_luma_in_three_equal_channels(self):
        clip = np.stack([picture(0), picture(1)])
        grey = transforms.recolour(clip, Augment(jitter=0, grey=1), rng())
        for frame, original in zip(grey, clip, strict=True):
            assert np.ptp(frame, axis=2).max() == 0
            assert np.abs(frame[..., 0].astype(int) - np.asarray(Image.fromarray(original).convert("L"))).max() <= 1

    def test_jitter_is_one_for_the_clip_or_as_released_one_for_each_frame(self):
        clip = np.stack([picture(0)] * 4)
        steady = transforms.recolour(clip, Augment(jitter=1, grey=0), rng(1))
        assert (steady == steady[0]).all() and (steady != clip).any()
        flicker = transforms.recolour(clip, Augment(jitter=1, grey=0, jitter_per_frame=True), rng(1))
        assert all((flicker[i] != flicker[i + 1]).any() for i in range(3))
        assert np.array_equal(transforms.recolour(clip, Augment(jitter=0, grey=0), rng(1)), clip)

    def test_shares_of_jittered_and_grey_clips(self):
        clip = picture(0, 8, 8)[None]
        changed = [transforms.recolour(clip, Augment(jitter=0.8, grey=0.2), rng(seed)) for seed in range(600)]
        grey = np.mean([np.ptp(c, axis=3).max() == 0 for c in changed])
        same = np.mean([np.array_equal(c, clip) for c in changed])
        assert abs(grey - 0.2) < 0.05 and abs(same - 0.2 * 0.8) < 0.05


def pil_jitter(image: np.ndarray, steps: list[tuple[str, float]]) -> np.ndarray:
    """torchvision's colour jitter of a PIL image, in int16."""
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    result = Image.fromarray(image)
    for name, value in steps:
        if name == "hue":
            hue, saturation, brightness = result.convert("HSV").split()
            turned = Image.fromarray((np.asarray(hue).astype(int) + int(value * 255)).astype(np.uint8))
            result = Image.merge("HSV", (turned, saturation, brightness)).convert("RGB")
        else:
            result = enhance[name](result).enhance(value)
    return np.asarray(result).astype(np.int16)


def test_erased_box_is_the_same_in_all_frames():
    clip = np.stack([picture(seed) for seed in range(3)])
    for seed in range(20):
        erased = transforms.erase(clip, (1.2, 2.6, 3.0), rng(seed))
        hole = (erased == [1, 3, 3]).all(axis=(0, 3))
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert hole.sum() == area and 0.015 < area / hole.size < 0.35
        np.testing.assert_array_equal(erased[:, ~hole], clip[:, ~hole])


class TestTrainClip:
    def test_is_a_function_of_the_state_of_its_generator(self, video):
        clip, augment = Clip(frames=4, size=48), Augment(erase=0.5, randaugment="rand-m9-n2-mstd0.5-inc1")
        samples = [transforms.train_clip(video, clip, augment, rng(seed))[0] for seed in (5, 5, 6)]
        assert samples[0].shape == (4, 48, 48, 3) and samples[0].dtype == np.uint8
        assert np.array_equal(samples[0], samples[1]) and not np.array_equal(samples[0], samples[2])

    def test_box_is_cut_from_the_source_and_resized_once(self, video):
        """Against full RGB frames, cropped and resized by hand; the reader may round the box to its chroma grid."""
        clip = Clip(frames=8, size=56)
        for seed in range(5):
            draws = rng(seed)
            indices = sampling.train_indices(FRAMES, clip, draws)
            height, width = transforms.short_side_size(HEIGHT, WIDTH, 64)
            position = random.Random(int(draws.randint(2**31)))
            x1, y1, x2, y2 = (
                round(value * scale)
                for value, scale in zip(
                    transforms.random_resized_crop(height, width, (0.3, 1), PLAIN.ratio, draws, position),
                    (WIDTH / width, HEIGHT / height) * 2,
                    strict=True,
                )
            )
            expected = [cv2.resize(frame[y1:y2, x1:x2], (56, 56)) for frame in decoded(video)[indices]]
            sample = transforms.train_clip(video, clip, PLAIN.model_copy(update={"scale": (0.3, 1)}), rng(seed))[0]
            assert np.abs(sample.astype(int) - expected).mean() < 5

    def test_multiscale_crop_is_what_pil_makes_of_the_frames(self, video):
        clip = Clip(frames=8, size=28, sampling="dense_looped")  # shrunk, so that antialiasing shows
        for seed in range(5):
            draws = rng(seed)
            indices = sampling.train_indices(FRAMES, clip, draws)
            box = transforms.multiscale_crop(HEIGHT, WIDTH, draws)
            frames = [Image.fromarray(frame) for frame in decoded(video)[indices]]
            expected = [np.asarray(frame.crop(box).resize((28, 28), Image.Resampling.BILINEAR)) for frame in frames]
            sample = transforms.train_clip(video, clip, PLAIN.model_copy(update={"crop": "multiscale"}), rng(seed))[0]
            assert np.array_equal(sample, expected)

    def test_flip_mirrors_every_frame(self, video):
        clip = Clip(frames=4, size=48)
        straight = transforms.train_clip(video, clip, PLAIN, rng(1))[0]
        mirrored = transforms.train_clip(video, clip, PLAIN.model_copy(update={"flip": 1}), rng(1))[0]
        assert np.array_equal(mirrored, straight[:, :, ::-1])

    def test_share_of_flips(self, video):
        clip, both = Clip(frames=1, size=16), (PLAIN, PLAIN.model_copy(update={"flip": 0.5}))
        pairs = [[transforms.train_clip(video, clip, how, rng(seed))[0] for how in both] for seed in range(60)]
        assert 15 < sum(np.array_equal(flipped, plain[:, :, ::-1]) for plain, flipped in pairs) < 45

    def test_missing_frames_are_sampled_anew_as_if_they_had_never_been_promised(self, video, monkeypatch):
        clip = Clip(frames=8, size=48)
        honest = [transforms.train_clip(video, clip, Augment(), rng(seed))[0] for seed in range(3)]
        promise_frames(monkeypatch, 3 * FRAMES)
        for seed in range(3):
            assert np.array_equal(transforms.train_clip(video, clip, Augment(), rng(seed))[0], honest[seed])

    def test_other_formats_show_the_same_place_at_the_same_moments(self, video):
        """The picture moves 3 pixels a frame, so that wrong moments or boxes would differ."""
        clip, augment = Clip(frames=4, size=48), Augment(scale=(0.5, 1), erase=0.5)
        others = [Clip(frames=8, size=48), Clip(frames=4, size=96), Clip(frames=4, size=48, mean=(1, 2, 3))]
        for seed in range(4):
            (alone,) = transforms.train_clip(video, clip, augment, rng(seed))
            first, finer, larger, same = transforms.train_clip(video, clip, augment, rng(seed), others)
            assert np.array_equal(first, alone)
            assert finer.shape == (8, 48, 48, 3) and larger.shape == (4, 96, 96, 3)
            shrunk = np.stack([cv2.resize(frame, (48, 48), interpolation=cv2.INTER_AREA) for frame in larger])
            assert np.abs(shrunk.astype(int) - first).mean() < 8
            assert np.abs(same.astype(int) - first).mean() < 40  # erased with its own mean
            assert np.abs(finer[::2].astype(int) - first).mean() < np.abs(finer[::2].astype(int) - first[::-1]).mean()

    def test_one_decoding_pass_per_size(self, video, monkeypatch):
        sizes, read = [], transforms.read_frames

        def counted(*arguments, size, **options):
            sizes.append(size)
            return read(*arguments, size=size, **options)

        monkeypatch.setattr(transforms, "read_frames", counted)
        formats = [Clip(frames=8, size=32), Clip(frames=2, size=48)]
        transforms.train_clip(video, Clip(frames=4, size=32), PLAIN, rng(), formats)
        assert sorted(sizes) == [(32, 32), (48, 48)]

    @pytest.mark.parametrize("name", sorted(Clip.model_fields))
    def test_formats_said_to_be_the_same_have_the_same_pixels(self, video, name):
        """Each field changed by itself, with everything that augmentation may draw in."""
        values = {"frames": 3, "interval": 3, "size": 40, "sampling": "dense", "fps": 12.5, "views": "pillow",
                  "mean": (1, 2, 3), "std": (4, 5, 6), "seconds": 9.0}  # fmt: skip
        clip = Clip(frames=4, interval=2, size=32, sampling="timed_window", fps=25)
        other = clip.model_copy(update={name: values[name]})
        one, two = transforms.train_clip(video, clip, Augment(erase=1), rng(1), [other])
        if clip.same_frames(other):
            assert np.array_equal(one, two)
        else:
            assert name == "views" or one.shape != two.shape or (one != two).any()

    def test_nothing_decodes(self, video, monkeypatch):
        for module in (transforms, views):
            monkeypatch.setattr(module, "read_frames", no_frames)
        with pytest.raises(VideoError):
            transforms.train_clip(video, Clip(), Augment(), rng())
        with pytest.raises(VideoError):
            views.test_clips(video, Clip(), 1, 1)


class TestTestClips:
    @pytest.mark.parametrize(("clips", "crops", "short"), [(4, 3, 48), (2, 1, 54), (1, 1, 54)])
    def test_views_are_crop_major_and_exact(self, video, clips, crops, short):
        clip = Clip(frames=4, size=48)
        cut = views.test_clips(video, clip, clips, crops)
        assert cut.shape == (clips * crops, 4, 48, 48, 3) and cut.dtype == np.uint8
        height, width = transforms.short_side_size(HEIGHT, WIDTH, short)
        resized = [cv2.resize(frame, (width, height)) for frame in decoded(video)]
        indices = sampling.test_indices(FRAMES, clip, clips)
        for crop, (x1, y1, x2, y2) in enumerate(views.view_boxes(height, width, 48, crops)):
            for m in range(clips):
                expected = [resized[i][y1:y2, x1:x2] for i in indices[m]]
                assert np.array_equal(cut[crop * clips + m], expected)

    def test_video_is_read_once(self, video, monkeypatch):
        reads = []
        read = views.read_frames
        monkeypatch.setattr(views, "read_frames", lambda *args, **how: reads.append(1) or read(*args, **how))
        views.test_clips(video, Clip(frames=8, size=32), 4, 3)
        assert len(reads) == 1

    def test_random_clips_follow_their_generator(self, video):
        clip = Clip(frames=4, size=32)
        one, same, other = (views.test_clips(video, clip, 2, 1, rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, same) and not np.array_equal(one, other)

    @pytest.mark.parametrize("seed", [None, 3])
    def test_missing_frames(self, video, monkeypatch, seed):
        def cut() -> np.ndarray:
            return views.test_clips(video, Clip(frames=8, size=32), 2, 3, None if seed is None else rng(seed))

        honest = cut()
        promise_frames(monkeypatch, 3 * FRAMES)
        assert np.array_equal(cut(), honest)


def promise_frames(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Lets the container of every video claim `count` frames."""
    probe = transforms.probe
    for module in (transforms, views):
        monkeypatch.setattr(module, "probe", lambda path: dataclasses.replace(probe(path), frames=count))


def no_frames(*args: object, **how: object) -> np.ndarray:
    raise FramesMissing("nothing decodes", 0)


def test_packed_bitstream_that_promises_too_many_frames(shared_data):
    """All of UT-Interaction is packed XviD, and nearly all of it claims frames that do not decode."""
    folder = shared_data / "clips" / "ut_interaction"
    for path in sorted(folder.rglob("*.avi"))[:2]:
        clip = Clip(frames=8, interval=1, size=56)
        frames = decoded(path)
        cut = views.test_clips(path, clip, 1, 1)
        height, width = transforms.short_side_size(*frames.shape[1:3], 64)
        ((x1, y1, x2, y2),) = views.view_boxes(height, width, 56, 1)
        indices = sampling.test_indices(len(frames), clip, 1)[0]
        expected = [cv2.resize(frames[i], (width, height))[y1:y2, x1:x2] for i in indices]
        assert np.array_equal(cut[0], expected)

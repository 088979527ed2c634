"""RandAugment against PIL's operations on single frames, and the strings that configure it."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vidstill.data import randaugment
from vidstill.data.randaugment import Policy, parse_policy

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def frame() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)]
    return np.clip(np.rint(120 + 90 * np.stack(waves, axis=-1)), 0, 255).astype(np.uint8)


def pil(frame: np.ndarray, operation: str, value: float | None) -> np.ndarray:
    """The operation on one picture as RandAugment implementations on PIL define it."""
    picture, size, grey, bilinear = Image.fromarray(frame), (WIDTH, HEIGHT), (128, 128, 128), Image.Resampling.BILINEAR
    affine = {
        "ShearX": lambda: (1, value, 0, 0, 1, 0),
        "ShearY": lambda: (1, 0, 0, value, 1, 0),
        "TranslateXRel": lambda: (1, 0, value * WIDTH, 0, 1, 0),
        "TranslateYRel": lambda: (1, 0, 0, 0, 1, value * HEIGHT),
    }
    if operation in affine:
        data = affine[operation]()
        return np.asarray(picture.transform(size, Image.Transform.AFFINE, data, bilinear, fillcolor=grey))
    if operation == "SolarizeAdd":
        return np.where(frame < 128, np.minimum(frame.astype(int) + value, 255), frame).astype(np.uint8)
    return np.asarray(
        {
            "AutoContrast": lambda: ImageOps.autocontrast(picture),
            "Equalize": lambda: ImageOps.equalize(picture),
            "Invert": lambda: ImageOps.invert(picture),
            "Rotate": lambda: picture.rotate(value, bilinear, fillcolor=grey),
            "Posterize": lambda: ImageOps.posterize(picture, value),
            "Solarize": lambda: ImageOps.solarize(picture, value),
            "Color": lambda: ImageEnhance.Color(picture).enhance(value),
            "Contrast": lambda: ImageEnhance.Contrast(picture).enhance(value),
            "Brightness": lambda: ImageEnhance.Brightness(picture).enhance(value),
            "Sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(value),
        }[operation]()
    )


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("magnitude", [3, 6, 9.5])
@pytest.mark.parametrize("operation", randaugment.OPERATIONS)
def test_operations_equal_pil(frame, operation, magnitude, negative):
    value = randaugment.strength(operation, magnitude, negative)
    # Equal frames: the histogram and mean of the clip are those of the frame. Equalize needs a single one, as it rounds
    # numbers of pixels.
    clip = np.stack([frame] * (1 if operation == "Equalize" else 3))
    changed = randaugment.apply(clip, operation, value)
    assert changed.shape == clip.shape and changed.dtype == np.uint8
    expected = pil(frame, operation, value).astype(int)
    for one in changed:
        if operation in randaugment.GEOMETRIC:
            # The two interpolate between picture and fill differently, along the border only.
            difference = np.abs(one - expected).max(axis=2)
            assert (difference > 4).mean() < 0.06
        else:
            np.testing.assert_array_equal(one, expected)


def test_no_bits_left_is_black(frame):
    assert randaugment.apply(frame[None], "Posterize", 0).max() == 0


def test_statistics_are_those_of_the_clip(frame):
    """A dark frame stays darker than a bright one: stretching each by itself would make them flicker."""
    clip = np.stack([frame // 4, frame // 4 + 100])
    for operation in ("AutoContrast", "Equalize"):
        changed = randaugment.apply(clip, operation, None)
        assert changed[0].mean() + 60 < changed[1].mean()
        assert changed.min() < 10 and changed.max() > 245


def test_equal_frames_stay_equal_and_draws_are_reproducible(frame):
    clip, policy = np.stack([frame] * 3), parse_policy("rand-m9-n2-mstd0.5-inc1")
    results = [randaugment.randaugment(clip, policy, np.random.RandomState(seed)) for seed in range(40)]
    again = [randaugment.randaugment(clip, policy, np.random.RandomState(seed)) for seed in range(40)]
    assert all((result == result[0]).all() for result in results)
    assert all(np.array_equal(a, b) for a, b in zip(results, again, strict=True))
    # Two operations, each applied with probability one half: a quarter of the clips stay as they are.
    assert 3 <= sum(np.array_equal(result, clip) for result in results) <= 20


def test_all_operations_occur(monkeypatch, frame):
    seen = []
    monkeypatch.setattr(randaugment, "apply", lambda clip, name, value: seen.append((name, value)) or clip)
    for seed in range(400):
        randaugment.randaugment(frame[None], Policy(5, 1, 2, True), np.random.RandomState(seed))
    assert {name for name, _ in seen} == set(randaugment.OPERATIONS)
    assert abs(len(seen) / 800 - randaugment.PROBABILITY) < 0.06
    angles = [value for name, value in seen if name == "Rotate"]
    assert min(angles) < 0 < max(angles) and len(set(angles)) == len(angles)


def test_policy_strings():
    assert parse_policy("rand-m9-n2-mstd0.5-inc1") == Policy(9, 0.5, 2, True)
    assert parse_policy("rand-m7-mstd0.5") == Policy(7, 0.5, 2, False)
    assert parse_policy("rand") == Policy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m9-n2", 'starts with "rand"'),
        ("rand-m9-x3", "its parts are"),
        ("rand-m", "its parts are"),
        ("rand-m9-m8", "given once"),
        ("rand-m11", "0 to 10"),
        ("rand-m9-n0", "1 to 15"),
        ("rand-m9-n1.5", "whole number"),
        ("rand-m9-inc2", "0 or 1"),
    ],
)
def test_wrong_policy_strings(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_policy(text)
    assert repr(text) in str(error.value)


def test_unknown_operations_are_refused():
    for name in ("Blur", "RotateIncreasing"):
        with pytest.raises(ValueError, match=name):
            randaugment.strength(name, 5)

"""RandAugment of whole clips: a few random operations of random strength, the same for every frame."""

from __future__ import annotations

import dataclasses
import re
from math import cos, radians, sin

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")
OPERATIONS = (
    *("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"),
    *ENHANCING,
    *GEOMETRIC,
)
# These have a second table, in which a larger magnitude always changes the clip more.
INCREASING = ("Posterize", "Solarize", *ENHANCING)

PROBABILITY = 0.5  # of each chosen operation
FILL = (128, 128, 128)  # where a geometric operation finds no pixel


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a string like "rand-m9-n2-mstd0.5-inc1" says."""

    magnitude: float = 10.0  # 0 to 10
    deviation: float = 0.0  # of the magnitude, drawn for each operation
    operations: int = 2  # chosen for each clip
    increasing: bool = False


def parse_policy(text: str) -> Policy:
    """Reads "rand-m9-n2-mstd0.5-inc1": magnitude, number of operations, deviation, increasing strengths (0 or 1)."""
    start, *parts = text.split("-")
    matches = [re.fullmatch(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)", part) for part in parts]
    values = {match[1]: float(match[2]) for match in matches if match}
    policy = Policy(
        values.get("m", 10.0), values.get("mstd", 0.0), int(values.get("n", 2)), bool(values.get("inc", False))
    )
    for wrong, allowed in (
        (start != "rand", 'it starts with "rand", as in "rand-m9-n2-mstd0.5-inc1"'),
        (not all(matches), "its parts are m, n, mstd and inc, each followed by a number and given after a dash"),
        (len(values) < len(parts), "each part is given once"),
        (policy.magnitude > 10, "the magnitude m is 0 to 10"),
        (
            policy.operations not in range(1, len(OPERATIONS) + 1),
            f"the number of operations n is 1 to {len(OPERATIONS)}",
        ),
        (values.get("n", 2) % 1 or values.get("inc", 0) not in (0, 1), "n is a whole number, inc is 0 or 1"),
    ):
        if wrong:
            raise ValueError(f"randaugment {text!r}: {allowed}")
    return policy


def randaugment(clip: np.ndarray, policy: Policy, rng: np.random.RandomState) -> np.ndarray:
    """`clip` uint8 (T,H,W,3) after random operations, chosen and drawn once for all its frames."""
    for choice in rng.randint(len(OPERATIONS), size=policy.operations):
        name = OPERATIONS[choice]
        apply_it, negative = rng.random_sample() < PROBABILITY, rng.random_sample() > 0.5
        magnitude = float(np.clip(rng.normal(policy.magnitude, policy.deviation), 0, 10))
        if apply_it:
            variant = f"{name}Increasing" if policy.increasing and name in INCREASING else name
            clip = apply(clip, name, strength(variant, magnitude, negative))
    return clip


def strength(operation: str, magnitude: float, negative: bool = False) -> float | None:
    """What an operation takes at a magnitude of 0 to 10: degrees, bits, threshold, offset, enhancement factor, shear,
    or share of the side; None where it takes nothing. `negative` turns geometric operations around, and the distance
    from 1 of increasing enhancements.
    """
    name = operation.removesuffix("Increasing")
    increasing = name != operation
    if name not in (INCREASING if increasing else OPERATIONS):
        raise ValueError(f"no RandAugment operation {operation!r}: there are {', '.join(OPERATIONS)}")
    share = magnitude / 10
    signed = -share if negative else share
    if name in ("Posterize", "Solarize"):
        most = 4 if name == "Posterize" else 256
        return most - int(share * most) if increasing else int(share * most)
    if name in ENHANCING:
        return 1 + 0.9 * signed if increasing else 0.1 + 1.8 * share
    if name == "SolarizeAdd":
        return int(110 * share)
    if name in GEOMETRIC:
        return signed * (30 if name == "Rotate" else 0.3 if name.startswith("Shear") else 0.45)
    return None


def apply(clip: np.ndarray, operation: str, value: float | None) -> np.ndarray:
    """One operation on a clip uint8 (T,H,W,3), as PIL does it. Histograms and means are those of the whole clip."""
    amount = 0.0 if value is None else value
    if operation in GEOMETRIC:
        return _warp(clip, operation, amount)
    if operation == "Sharpness":  # the only filter: as one picture the frames would leak into each other
        return np.stack([np.asarray(ImageEnhance.Sharpness(Image.fromarray(frame)).enhance(amount)) for frame in clip])
    tall = clip.reshape(-1, *clip.shape[2:])
    level = np.arange(256)
    if operation == "Invert":
        changed = cv2.bitwise_not(tall)
    elif operation == "Posterize":
        changed = cv2.LUT(tall, (level >> (8 - int(amount)) << (8 - int(amount))).astype(np.uint8))
    elif operation == "Solarize":
        changed = cv2.LUT(tall, np.where(level < amount, level, 255 - level).astype(np.uint8))
    elif operation == "SolarizeAdd":
        changed = cv2.LUT(tall, np.where(level < 128, np.minimum(level + int(amount), 255), level).astype(np.uint8))
    else:
        picture = Image.fromarray(tall)
        if operation == "AutoContrast":
            picture = ImageOps.autocontrast(picture)
        elif operation == "Equalize":
            picture = ImageOps.equalize(picture)
        else:
            picture = getattr(ImageEnhance, operation)(picture).enhance(amount)
        changed = np.array(picture)
    return changed.reshape(clip.shape)


def _warp(clip: np.ndarray, operation: str, value: float) -> np.ndarray:
    height, width = clip.shape[1:3]
    source = np.eye(2, 3)  # of a position in the result, measured from the corner of the picture
    if operation == "Rotate":
        cosine, sine = cos(radians(value)), sin(radians(value))
        source[:, :2] = [[cosine, -sine], [sine, cosine]]
        centre = np.array([width, height]) / 2
        source[:, 2] = centre - source[:, :2] @ centre
    elif operation in ("ShearX", "ShearY"):
        source[(0, 1) if operation == "ShearX" else (1, 0)] = value
    else:
        axis = 0 if operation == "TranslateXRel" else 1
        source[axis, 2] = value * (width, height)[axis]
    source[:, 2] += source[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV measures from the centre of the first pixel
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(frame, source, (width, height), flags=flags, borderValue=FILL) for frame in clip])

"""Mixup and CutMix against loops over clips, and the draws against their distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Augment
from vidstill.data import blending

PERM = torch.tensor([2, 0, 1])
LABELS = torch.tensor([4, 0, 2])


@pytest.fixture
def clips() -> torch.Tensor:
    """(3,3,2,6,8), channels last in memory as normalise leaves them."""
    return torch.randn(3, 2, 6, 8, 3, generator=torch.Generator().manual_seed(0)).permute(0, 4, 1, 2, 3)


def generator(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)


def test_smoothed_targets():
    targets = blending.one_hot(LABELS, 5, 0.1)
    np.testing.assert_allclose(targets[0], [0.02, 0.02, 0.02, 0.02, 0.92], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert torch.equal(blending.one_hot(LABELS, 5), torch.nn.functional.one_hot(LABELS, 5).float())


def test_mixup_is_a_weighted_sum_of_partners(clips):
    targets = blending.one_hot(LABELS, 5)
    mixed, soft = blending.mixup(clips, targets, 0.3, PERM)
    for i, partner in enumerate(PERM):
        torch.testing.assert_close(mixed[i], 0.3 * clips[i] + 0.7 * clips[partner])
        torch.testing.assert_close(soft[i], 0.3 * targets[i] + 0.7 * targets[partner])


def test_cutmix_pastes_the_box_of_the_partner_in_all_frames(clips):
    before = clips.clone()
    targets = blending.one_hot(LABELS, 5)
    pasted, soft = blending.cutmix(clips, targets, (1, 2, 4, 6), PERM)
    for i, partner in enumerate(PERM):
        for y in range(6):
            for x in range(8):
                source = before[partner] if 1 <= x < 4 and 2 <= y < 6 else before[i]
                assert torch.equal(pasted[i, :, :, y, x], source[:, :, y, x])
        torch.testing.assert_close(soft[i], 0.75 * targets[i] + 0.25 * targets[partner])
    assert torch.equal(clips, before)


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 1), st.data())
def test_cutmix_box_lies_in_the_frame_and_is_no_larger_than_its_share(height, width, lam, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1, x2, y2 = blending.cutmix_box(height, width, lam, x, y)
    assert 0 <= x1 <= x <= x2 <= width and 0 <= y1 <= y <= y2 <= height
    assert (x2 - x1) * (y2 - y1) <= (1 - lam) * height * width + 1e-6


def test_blend_keeps_the_memory_layout_of_the_clips(clips):
    for seed in range(4):
        blended, _ = blending.blend(clips, LABELS, 5, Augment(), generator(seed))
        assert blended.permute(0, 2, 3, 4, 1).is_contiguous()


def test_blend_is_a_function_of_the_generator(clips):
    first = blending.blend(clips, LABELS, 5, Augment(), generator(7))
    torch.rand(5)  # neither torch's nor numpy's global stream is used
    np.random.rand(5)
    second = blending.blend(clips, LABELS, 5, Augment(), generator(7))
    other = blending.blend(clips, LABELS, 5, Augment(), generator(8))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_both_off_only_smooths_the_labels(clips):
    augment = Augment(mixup=0, cutmix=0, smoothing=0.2)
    blended, targets = blending.blend(clips, LABELS, 5, augment, generator(0))
    assert torch.equal(blended, clips)
    assert torch.equal(targets, blending.one_hot(LABELS, 5, 0.2))


@pytest.mark.parametrize(
    ("augment", "share"),
    [
        (Augment(), 0.5),
        (Augment(switch=0.2), 0.2),
        (Augment(mixup=0), 1),
        (Augment(cutmix=0), 0),
    ],
)
def test_share_of_cutmix(augment, share):
    """Two clips of 0 and 1: a blended value strictly between the two is mixup's."""
    clips = torch.tensor([0.0, 1.0])[:, None, None, None, None].expand(2, 3, 1, 16, 16)
    labels = torch.tensor([0, 1])
    cut = []
    for seed in range(400):
        blended, targets = blending.blend(clips, labels, 2, augment, generator(seed))
        if not torch.equal(blended, clips):
            cut.append(bool(((blended == 0) | (blended == 1)).all()))
        # The targets say what share of each clip is left, however it was blended.
        left = blended[1].mean() if torch.equal(targets[0].flip(0), targets[1]) else None
        if left is not None and not torch.equal(blended, clips):
            torch.testing.assert_close((targets[1, 1] - 0.05) / 0.9, left, atol=1e-5, rtol=0)
    assert abs(np.mean(cut) - share) < 0.1


def test_lambda_follows_its_beta_distribution():
    """Beta(0.8, 0.8) has mean 1/2 and variance 1 / (4 (2·0.8 + 1))."""
    clips = torch.tensor([0.0, 1.0])[:, None, None, None, None].expand(2, 3, 1, 2, 2)
    drawn = []
    for seed in range(1200):
        blended, _ = blending.blend(clips, torch.tensor([0, 1]), 2, Augment(cutmix=0), generator(seed))
        drawn.append(float(blended[1].mean()))
    drawn = [value for value in drawn if value < 1]  # about half of the permutations leave both clips in place
    assert 480 < len(drawn) < 720
    assert abs(np.mean(drawn) - 0.5) < 0.04
    assert abs(np.var(drawn) - 1 / (4 * 2.6)) < 0.012


def test_the_same_clips_in_another_size_are_blended_in_the_same_places():
    """Frames of two colours: the pasted share and place agree where the larger size is twice the smaller."""
    small = torch.zeros(2, 3, 1, 16, 24)
    small[1] = 1
    large = torch.zeros(2, 3, 1, 32, 48)
    large[1] = 1
    for seed in range(8):
        augment = Augment(mixup=0)
        one, _ = blending.blend(small, torch.tensor([0, 1]), 2, augment, generator(seed))
        other, _ = blending.blend(large, torch.tensor([0, 1]), 2, augment, generator(seed), (16, 24))
        assert torch.equal(other[..., ::2, ::2], one) and torch.equal(other[..., 1::2, 1::2], one)


def test_several_labels_of_a_clip_are_blended_and_smoothed_like_one(clips):
    hot = torch.tensor([[1.0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    for seed in range(6):
        for augment in (Augment(), Augment(mixup=0, cutmix=0, smoothing=0.2)):
            blended, targets = blending.blend(clips, LABELS, 5, augment, generator(seed))
            same, several = blending.blend(clips, hot, 5, augment, generator(seed))
            assert torch.equal(same, blended)
            sharp, other = ((t - augment.smoothing / 5) / (1 - augment.smoothing) for t in (targets, several))
            share = sharp[:, LABELS]  # of each clip in each blended one
            torch.testing.assert_close(other, share @ hot)
    assert several.max().item() == pytest.approx(1 - 0.2 + 0.2 / 5)

"""The DualFormer family: sizes and costs of the published table, any input, gradients, released files, inference."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidstill.models.catalogue import CATALOGUE
from vidstill.models.dualformer import DualFormer, GlobalAttention, LocalAttention
from vidstill.models.layers import can_pack
from vidstill.models.registry import create_model
from vidstill.models.weights import load_weights

TINY_16 = {"video_size": (16, 224, 224)}
TABLE = [  # classes, options, parameters, of the backbone: spec of the releases
    ("dualformer_tiny", 400, {}, 21_972_560, 21_767_360),
    ("dualformer_small", 400, {}, 49_215_664, 48_908_064),
    ("dualformer_base", 400, {}, 87_247_632, 86_837_632),
    ("dualformer_base", 600, {}, 87_452_632, 86_837_632),
    ("dualformer_small", 48, {}, 48_944_976, 48_908_064),
    ("dualformer_small", 51, {}, 48_947_283, 48_908_064),
    ("dualformer_small", 101, {}, 48_985_733, 48_908_064),
    ("dualformer_tiny", 101, TINY_16, 21_807_141, 21_755_328),
    ("dualformer_tiny", 400, {"token_head": True}, 25_416_672, 21_767_360),
]
MICRO = {
    "video_size": (8, 64, 64), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (2, 2, 2, 2),
    "mlp_ratios": (2, 2, 2, 2), "local_sizes": ((2, 4, 4), (4, 2, 2), (4, 2, 2), (4, 1, 1)),
    "fine_pysizes": ((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)), "coarse_pysizes": ((2, 1, 1),) * 4,
    "drop_path_rate": 0.0, "dropout_ratio": 0.0,
}  # fmt: skip


def micro(seed: int = 0, classes: int = 7, **options: Any) -> DualFormer:
    """Weights large enough for every part to show in the logits."""
    torch.manual_seed(seed)
    size = {**MICRO, **options}
    model = create_model("dualformer_tiny", classes, **size).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert isinstance(model, DualFormer)
    return model


def clips(batch: int = 2, frames: int = 8, height: int = 64, width: int = 64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, height, width, 3, generator=generator).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(("name", "classes", "options", "parameters", "backbone"), TABLE)
def test_parameter_counts_of_the_releases(
    name: str, classes: int, options: dict[str, Any], parameters: int, backbone: int
) -> None:
    model = create_model(name, classes, device="meta", **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "frames", "options", "expected"),
    [
        ("dualformer_tiny", 32, {}, 59.86),
        ("dualformer_tiny", 16, TINY_16, 29.75),
        ("dualformer_small", 32, {}, 158.26),
        ("dualformer_base", 32, {}, 267.39),
    ],
)
def test_cost(name: str, frames: int, options: dict[str, Any], expected: float) -> None:
    model = create_model(name, device="meta", **options).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, frames, 224, 224, device="meta"))
    head = 400 * model.cls_head.width / 1e9
    assert counter.get_total_flops() / 2e9 - head == pytest.approx(expected, abs=0.006)
    if not options:
        assert CATALOGUE[name].gmacs == expected


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 5, 47, 33), (1, 16, 64, 100), (2, 8, 9, 130)])
def test_any_frame_count_and_size(shape: tuple[int, int, int, int]) -> None:
    model = micro()
    features = model.forward_features(clips(*shape))["features"]
    batch, frames, height, width = shape
    assert features.shape == (batch, 16, math.ceil(frames / 2), math.ceil(height / 32), math.ceil(width / 32))
    assert model(clips(*shape)).shape == (batch, 7) and model(clips(*shape)).isfinite().all()


@pytest.mark.parametrize("grid", [(3, 5, 7), (4, 4, 3), (1, 1, 1), (5, 2, 9), (8, 8, 8)])
def test_windows_that_the_grid_does_not_fill_see_only_what_is_there(grid: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    attention = LocalAttention(8, 2, (2, 4, 3), True, scale=None, attn_drop=0.0, drop=0.0)
    x = torch.randn(2, *grid, 8)
    y = attention(x)
    for d in range(0, grid[0], 2):
        for h in range(0, grid[1], 4):
            for w in range(0, grid[2], 3):
                window = x[:, d : d + 2, h : h + 4, w : w + 3]
                alone = attention.attend(*attention.qkv(window.flatten(1, 3)).unflatten(-1, (3, 2, 4)).unbind(2))
                expected = attention.proj(alone).view(window.shape)
                torch.testing.assert_close(y[:, d : d + 2, h : h + 4, w : w + 3], expected, rtol=1e-5, atol=1e-6)


def test_windows_against_the_formula() -> None:
    """Softmax of scaled products, with the scale that was asked for."""
    torch.manual_seed(0)
    attention = LocalAttention(6, 3, (2, 2, 2), True, scale=0.7, attn_drop=0.0, drop=0.0)
    x = torch.randn(1, 2, 2, 2, 6)
    q, k, v = attention.qkv(x.view(8, 6)).view(8, 3, 3, 2).permute(1, 2, 0, 3)
    expected = attention.proj(((q @ k.transpose(1, 2) * 0.7).softmax(-1) @ v).transpose(0, 1).reshape(8, 6))
    torch.testing.assert_close(attention(x).view(8, 6), expected)


def test_global_attention_sees_fine_tokens_and_then_coarse_ones() -> None:
    torch.manual_seed(0)
    attention = GlobalAttention(4, 2, (1, 2, 2), (2, 1, 1), True, scale=None, attn_drop=0.0, drop=0.0).eval()
    x = torch.randn(1, 4, 14, 14, 4)
    assert attention._pool(x).shape == (1, 4 * 7 * 7 + 2 * 2 * 2, 4)
    smaller = attention._pool(x[:, :1, :3, :1])  # kernels larger than the grid see what there is
    assert smaller.shape == (1, 1 * 1 * 1 + 1, 4) and smaller.isfinite().all()


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    model, x = micro(), clips(3)
    torch.testing.assert_close(model(x[[2, 0, 1]]), model(x)[[2, 0, 1]], rtol=1e-5, atol=1e-5)


def test_memory_layout_of_the_clips_does_not_matter() -> None:
    model, x = micro(), clips()
    torch.testing.assert_close(model(x.contiguous()), model(x), rtol=1e-5, atol=1e-5)


def test_stages_with_windows_of_one_token_look_far_in_every_block() -> None:
    model = micro(local_sizes=((2, 4, 4), (1, 1, 1), (4, 2, 2), (4, 1, 1)))
    kinds = [[type(block.attn) for block in stage] for stage in model.backbone.blocks]
    assert kinds[:2] == [[LocalAttention, GlobalAttention], [GlobalAttention, GlobalAttention]]
    assert model(clips()).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "one entry per stage, got embed_dims 4, num_heads 4, depths 2"),
        ({"num_heads": (1, 2, 3, 2)}, "heads must divide the width"),
        ({"patch_size": (2, 8, 8)}, "patches are 4×4 pixels"),
        ({"local_sizes": ((1, 7),) * 4}, "depth, height and width"),
        ({"coarse_pysizes": ((2, 4, 4),) * 4}, "coarse_pysizes .* need at least 1×7×7"),
        ({"depths": (0, 1, 1, 1)}, "at least one block"),
        ({"dephts": (1, 1, 1, 1)}, "did you mean depths"),
    ],
)
def test_options_that_cannot_be_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        micro(**options)
    assert "\n" not in str(error.value)


def test_a_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"clips are \(B,3,T,H,W\), got \(1, 4, 8, 8, 8\)"):
        micro()(torch.zeros(1, 4, 8, 8, 8))


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = create_model("dualformer_tiny", 400, depths=(2, 2, 2, 2), token_head=True)
    qkv, fc = model.backbone.blocks[3][0].attn.qkv, model.cls_head.fc_cls
    assert qkv.weight.std().item() == pytest.approx(0.02, rel=0.02) and not qkv.bias.any()
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.02) and not fc.bias.any()
    assert model.cls_head.token_linear[0].bias.any()  # PyTorch's own


@pytest.mark.parametrize("train", [True, False])
def test_checkpointing_changes_nothing(train: bool) -> None:
    results = []
    for checkpointing in (False, True):
        model = micro(drop_path_rate=0.3, drop_rate=0.2, attn_drop_rate=0.1).train(train)
        model.checkpointing = checkpointing
        torch.manual_seed(3)
        logits = model(clips())
        logits.square().sum().backward()
        results.append((logits, [p.grad for p in model.parameters()], list(model.buffers())))
    (plain, gradients, buffers), (again, recomputed, others) = results
    assert torch.equal(plain, again)
    for one, other in zip([*gradients, *buffers], [*recomputed, *others], strict=True):
        torch.testing.assert_close(one, other)


def test_every_parameter_learns() -> None:
    model = micro(token_head=True).train()
    logits, tokens = model.forward_tokens(clips())
    assert tokens.shape == (2, 4, 2, 2, 7)
    (logits.square().sum() + tokens.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_token_labels_average_to_the_logits() -> None:
    model, x = micro(), clips()
    torch.testing.assert_close(model.annotate(x).mean((1, 2, 3)), model(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="token_head=True"):
        model.forward_tokens(x)


def test_a_fresh_head() -> None:
    model = micro(token_head=True)
    model.reset_classifier(3)
    assert model.forward_tokens(clips())[1].shape[-1] == 3 and model.classes is None
    model.reset_classifier(0)
    assert model(clips()).shape == (2, 16)


def released(model: DualFormer) -> dict[str, Any]:
    return {"meta": {"epoch": 30}, "state_dict": model.state_dict(), "optimizer": {"state": {}}}


def test_a_checkpoint_of_token_labelling() -> None:
    """Its annotation model is left out; its token head where the model has none."""
    source = micro(seed=1, token_head=True)
    checkpoint = released(source)
    checkpoint["state_dict"] |= {f"teacher.{key}": value for key, value in micro().state_dict().items()}
    model = micro()
    report = load_weights(model, checkpoint)
    assert torch.equal(model(clips()), source(clips()))
    assert len(report.ignored) == 6 and "annotation model" in report.notes[0]
    assert len(load_weights(micro(token_head=True), checkpoint).ignored) == 0


def test_counters_of_batch_norms_may_be_missing() -> None:
    state = {key: value for key, value in micro(seed=1).state_dict().items() if "num_batches" not in key}
    report = load_weights(micro(), state)
    assert set(report.kept) == {f"backbone.blocks.{s}.1.attn.lr.1.num_batches_tracked" for s in (0, 1)}


@pytest.mark.parametrize(("before", "after"), [(16, 8), (8, 16)])
def test_weights_of_another_number_of_frames(before: int, after: int) -> None:
    """A clip that stands still gets the same pooled tokens."""
    options = {"fine_pysizes": ((2, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)), "coarse_pysizes": ((1, 1, 1),) * 4}
    source = micro(seed=1, video_size=(before, 64, 64), **options)
    model = micro(video_size=(after, 64, 64), **options)
    report = load_weights(model, released(source))
    resized = {key: value for key, value in report.resized.items() if key.startswith("backbone.blocks.0")}
    assert resized == {
        "backbone.blocks.0.1.attn.sr.weight": f"{before // 4} time steps to {after // 4}",
        "backbone.blocks.0.1.attn.lr.3.weight": f"{before // 2} time steps to {after // 2}",
    }
    still = torch.randn(1, 1, 16, 16, 8)
    pooled = [
        owner.backbone.blocks[0][1].attn._pool(still.expand(-1, frames // 2, -1, -1, -1))
        for owner, frames in ((source, before), (model, after))
    ]
    torch.testing.assert_close(*pooled, rtol=1e-4, atol=1e-5)


def test_weights_whose_kernels_cannot_be_resampled_are_refused() -> None:
    odd = micro(video_size=(24, 64, 64), fine_pysizes=((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)))
    even = micro(video_size=(16, 64, 64), fine_pysizes=((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)))
    with pytest.raises(ValueError, match=r"have another shape: backbone\.blocks\.0\.1\.attn\.sr\.weight is 8×1×3"):
        load_weights(even, released(odd))


def test_an_image_model_needs_a_fresh_head() -> None:
    images = {"patch_embeds.0.proj.weight": torch.zeros(8, 3, 4, 4), "norm.weight": torch.ones(8)}
    with pytest.raises(ValueError, match='is an image model, whose classifier does not fit videos: head="fresh"'):
        load_weights(micro(), images)


needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="no x86 CPU with oneDNN")


@needs_packing
@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}])
@pytest.mark.parametrize("shape", [(2, 8, 64, 64), (1, 5, 47, 70)])
def test_optimised_gives_the_same_logits(options: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
    model, x = micro(**options), clips(*shape)
    exact = copy.deepcopy(model).double()(x.double())
    with torch.inference_mode():
        plain = model(x)
        fast = model.optimise_for_inference()(x)
        assert model.backbone.blocks[0][0].mlp.packed and model.backbone.blocks[0][1].attn.packed
    assert (fast - exact).abs().max() <= 3 * (plain - exact).abs().max() + 1e-5 * plain.abs().max()


def test_autocast_trains_in_mixed_precision() -> None:
    model = micro().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(clips()), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_half_precision_copies_run() -> None:
    model = micro().to(torch.bfloat16)
    assert model(clips()).dtype == torch.float32

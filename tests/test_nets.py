"""The networks: what they are told, and that what is absent says nothing."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from minidiff.common import Condition, TextEmbedding, randn, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP, UNet, UNetConfig
from minidiff.nets.layers import Attention, AttentionBlock, TimeEmbedding, position_embedding
from minidiff.schedules import RectifiedFlow
from minidiff.text import WordEncoder
from minidiff.training import ConditionDropout, Denoising
from minidiff.training.objectives import JointDenoising

SMALL = UNetConfig(
    size=16, widths=(16, 32), attention=(False, True), blocks=1, embedding=32,
    context_dim=12, pooled_dim=10, image_dim=8, labels=4, dropout=0.0,
)  # fmt: skip
X, T = randn((3, 3, 16, 16), seeded(0)), torch.tensor([0.1, 0.5, 0.9])


def words(n=3, length=5, real=5):
    mask = (torch.arange(length) < real).expand(n, length)
    return TextEmbedding(randn((n, length, 12), seeded(1)), mask, randn((n, 10), seeded(2)))


def everything():
    return Condition(text=words(), image=randn((3, 8), seeded(3)), label=torch.tensor([1, 2, 3]))


@pytest.fixture(scope="module")
def unet():
    """A U-Net whose zero-initialized layers were stirred, as training does: a new one answers 0 to everything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(SMALL).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return net.requires_grad_(False)


def test_a_new_unet_begins_with_zero_and_keeps_the_shape():
    net = UNet(SMALL)
    assert torch.equal(net(X, T, everything()), torch.zeros_like(X))


def test_every_weight_of_a_stirred_unet_learns_from_a_full_condition(unet: UNet) -> None:
    net = copy.deepcopy(unet).requires_grad_(True)
    net(X, T, everything()).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_network_in_half_precision_says_nearly_the_same(unet):
    half = copy.deepcopy(unet).bfloat16()
    said = half(X.bfloat16(), T)
    assert said.dtype == torch.bfloat16
    torch.testing.assert_close(said.float(), unet(X, T), atol=0.05, rtol=0.05)


def test_pictures_of_another_size_are_refused(unet):
    for shape in ((3, 3, 32, 32), (3, 3, 16, 8), (3, 1, 16, 16), (3, 16, 16)):
        with pytest.raises(
            ValueError, match=r"`x` must have shape \(B, 3, 16, 16\).*got \(3, .*: scale the pictures"
        ):
            unet(torch.zeros(shape), T)


def test_each_condition_makes_a_difference(unet):
    plain = unet(X, T)
    assert plain.shape == X.shape
    for cond in (
        Condition(text=words()),
        Condition(image=everything().image),
        Condition(label=torch.tensor([1, 2, 3])),
    ):
        assert not torch.allclose(unet(X, T, cond), plain, atol=1e-3)
    assert not torch.allclose(unet(X, T.flip(0)), plain, atol=1e-3)


def test_a_dropped_condition_says_the_same_as_its_mask_and_zeros_promise(unet):
    """Absence is zero: what stands in a masked token cannot matter, and no image is a zero image."""
    nothing = unet(X, T, everything().null())
    rubbish = words()._replace(mask=torch.zeros(3, 5, dtype=torch.bool), pooled=torch.zeros(3, 10))
    other = Condition(text=rubbish, image=torch.zeros(3, 8), label=torch.zeros(3, dtype=torch.long))
    assert torch.allclose(unet(X, T, other), nothing, atol=1e-5)
    assert torch.allclose(unet(X, T), nothing, atol=1e-5)


def test_padding_does_not_change_the_answer(unet):
    short = words(length=2, real=2)
    padding = randn((3, 3, 12), seeded(9))
    tokens = torch.cat([short.tokens, padding], dim=1)
    mask = torch.tensor([True, True, False, False, False]).expand(3, 5)
    longer = TextEmbedding(tokens, mask, short.pooled)
    got, wanted = unet(X, T, Condition(text=longer)), unet(X, T, Condition(text=short))
    assert torch.allclose(got, wanted, atol=1e-5)


def test_a_sample_does_not_see_its_neighbors(unet):
    full, cond = unet(X, T, everything()), everything()
    alone = unet(X[1:2], T[1:2], cond.index([1]))
    assert torch.allclose(full[1:2], alone, atol=1e-5)


def test_recorded_attention_adds_up_to_one_and_ignores_padding(unet):
    text = words(real=3)
    with unet.record_attention() as maps:
        unet(X, T, Condition(text=text))
    assert maps and all(m.shape[-1] == 6 for m in maps)  # the word that is always there, and five tokens
    for m in maps:
        assert torch.allclose(m.sum(-1), torch.ones(m.shape[:-1]), atol=1e-5)
        assert float(m[..., 4:].max()) == 0
    with unet.record_attention() as again:
        pass
    unet(X, T)
    assert again == []


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    layer = Attention(dim=8, heads=2, context_dim=6)
    layer.out.load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
    x, context = randn((2, 5, 8), seeded(0)), randn((2, 3, 6), seeded(1))
    q, (k, v) = layer.to_q(x), layer.to_kv(context).chunk(2, dim=-1)
    heads, maps = [], []
    for h in (slice(0, 4), slice(4, 8)):
        weights = (q[..., h] @ k[..., h].transpose(1, 2) / 4**0.5).softmax(-1)
        heads.append(weights @ v[..., h])
        maps.append(weights)
    layer.record = []
    assert torch.allclose(layer(x, context), torch.cat(heads, -1), atol=1e-5)
    assert torch.allclose(layer.record[0], torch.stack(maps, dim=1), atol=1e-6)


@pytest.mark.parametrize("real", [3, 1])
def test_attention_says_the_same_while_it_learns_is_recorded_or_draws(real: int):
    torch.manual_seed(0)
    layer = Attention(dim=8, heads=2, context_dim=6)
    layer.out.load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
    x, context, mask = randn((2, 5, 8), seeded(0)), randn((2, 3, 6), seeded(1)), torch.arange(3).expand(2, 3) < real
    learned = layer(x, context, mask)
    with torch.no_grad():
        drawn = layer(x, context, mask)  # by PyTorch's own kernel
        layer.record = []
        recorded = layer(x, context, mask)
    torch.testing.assert_close(learned, drawn)
    torch.testing.assert_close(recorded, drawn)
    other = context.masked_fill(~mask[..., None], 9.0)
    torch.testing.assert_close(layer(x, other, mask), drawn)


def test_attention_in_half_precision_is_as_good_while_it_learns_as_when_it_draws():
    torch.manual_seed(0)
    layer, x = Attention(dim=64, heads=2), randn((2, 256, 64), seeded(0))
    layer.out.load_state_dict({"weight": torch.eye(64), "bias": torch.zeros(64)})
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        learned = layer(x)
        with torch.no_grad():
            drawn = layer(x)
    errors = [float((y.float() - exact).detach().norm() / exact.detach().norm()) for y in (learned, drawn)]
    assert errors[0] < 2 * errors[1] < 0.05


def test_neighboring_times_have_different_embeddings():
    torch.manual_seed(0)
    embedding = TimeEmbedding(32)
    t = torch.arange(1001) / 1000
    e = embedding(t).detach()
    assert e.shape == (1001, 32) and float((e[1:] - e[:-1]).norm(dim=1).min()) > 1e-4


def test_the_mlp_takes_points_of_any_dimension_and_labels():
    torch.manual_seed(0)
    net, x = MLP(dim=5, width=16, labels=3), randn((4, 5), seeded(0))
    t = torch.full((4,), 0.3)
    none = net(x, t)
    assert none.shape == x.shape
    assert torch.equal(net(x, t, Condition(label=torch.zeros(4, dtype=torch.long))), none)
    assert not torch.allclose(net(x, t, Condition(label=torch.ones(4, dtype=torch.long))), none)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: UNetConfig(size=20), "`size` must be a multiple of 8 for this U-Net; got 20"),
        (lambda: UNetConfig(attention=(True,)), r"`attention` must have one entry per width \(3\); got 1"),
        (lambda: UNetConfig(widths=(64, 100, 160)), "`widths` with attention must be .* got 100"),
        (lambda: MLP(width=0), "`width` must be an integer from 1 to 10000; got 0"),
    ],
)  # fmt: skip
def test_wrong_shapes_get_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_position_embedding_tells_all_places_apart_and_left_from_right():
    places = position_embedding(8, 32)
    assert places.shape == (64, 32) and torch.equal(places[:, 16:], torch.zeros(64, 16))
    assert torch.cdist(places, places).add(torch.eye(64)).min() > 0.1
    rows, columns = places.view(8, 8, 32)[:, :, 4], places.view(8, 8, 32)[:, :, 12]  # cos(pi y), cos(pi x)
    assert (rows.diff(dim=0) < 0).all() and (columns.diff(dim=1) < 0).all()
    assert rows[0, 0] == pytest.approx(math.cos(math.pi / 16)) and torch.allclose(rows, columns.T)


@pytest.mark.parametrize("positions", [False, True])
def test_only_attention_that_knows_places_can_tell_where_it_is(positions):
    """Without places, attention treats a shuffled picture as the same picture, shuffled."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = AttentionBlock(16, 2, context_dim=12, side=4 if positions else None)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x, text = randn((3, 16, 4, 4), seeded(1)), words()
    turned = block(x.flip(3), text.tokens, text.mask).flip(3)
    same = torch.allclose(turned, block(x, text.tokens, text.mask), atol=1e-4)
    assert same == (not positions)


def test_training_times_lie_where_they_are_asked_for():
    """log(t / (1 - t)) ~ N(m, s^2)."""
    for shape in ((0.0, 1.0), (1.5, 0.5)):
        denoiser = NetDenoiser(UNet(SMALL), RectifiedFlow(), "flow", time_sampling="logit-normal", time_shape=shape)
        odds = torch.logit(denoiser.draw_times(40_000, seeded(0), torch.device("cpu")))
        assert odds.mean() == pytest.approx(shape[0], abs=0.02) and odds.std() == pytest.approx(shape[1], abs=0.02)
    with pytest.raises(ValueError, match="`time_shape` must be a number from -10 to 10; got nan"):
        NetDenoiser(UNet(SMALL), RectifiedFlow(), "flow", time_shape=(float("nan"), 1.0))


def test_a_label_that_the_network_does_not_know_is_named():
    net = UNet(UNetConfig(size=8, patch=1, widths=(8,), attention=(False,), blocks=1, embedding=8, labels=4))
    with pytest.raises(ValueError, match=r"`label` must be from 0 \(none\) to 4; got \[5\]"):
        net(torch.zeros(1, 3, 8, 8), torch.zeros(1), Condition(label=torch.tensor([5])))


def test_a_training_on_what_the_network_cannot_read_is_refused():
    nothing = replace(SMALL, context_dim=None, pooled_dim=None, image_dim=None, labels=0)
    deaf = NetDenoiser(UNet(nothing), RectifiedFlow())
    with pytest.raises(ValueError, match="`label_drop` must be 0 for a network without labels"):
        Denoising(deaf, label_drop=0.1)
    with pytest.raises(ValueError, match="and this one reads none: see `context_dim`"):
        JointDenoising(deaf, WordEncoder.of(["a cat"], dim=12, heads=2), ConditionDropout())
    assert deaf(X, T, everything()).x0.shape == X.shape  # as the weak model of guidance, say


@pytest.mark.parametrize("wrong", [{"size": 16.0}, {"patch": 0}, {"labels": -1}, {"labels": True}, {"dropout": 2}])
def test_a_shape_that_no_network_has_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        UNetConfig(**wrong)

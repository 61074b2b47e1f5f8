"""What training samples are told and not told, and where they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from minidiff.common import Condition, TextEmbedding, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.schedules import CosineSchedule, LinearSchedule
from minidiff.text import WordEncoder
from minidiff.training import ConditionDropout, Denoising, TensorSource, TrainConfig, train
from minidiff.training.objectives import JointDenoising


def test_labels_travel_with_their_samples() -> None:
    source = TensorSource(torch.arange(10.0)[:, None], torch.arange(1, 11))
    x, cond = source.batch(torch.tensor([3, 7]), seeded(0))
    assert x.flatten().tolist() == [3, 7]
    assert cond is not None and cond.label is not None and cond.label.tolist() == [4, 8]
    with pytest.raises(ValueError, match="`labels` must have one entry per sample"):
        TensorSource(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(ValueError, match=r"`x` must be floating-point .*got torch\.uint8: .*to_float"):
        TensorSource(torch.zeros(3, 1, dtype=torch.uint8))
    _, cond = TensorSource(torch.zeros(3, 1), torch.ones(3, dtype=torch.uint8)).batch(torch.arange(3), seeded(0))
    assert cond is not None and cond.label is not None and cond.label.dtype == torch.long  # as nn.Embedding asks


def test_text_and_image_are_kept_in_the_four_shares() -> None:
    keep_text, keep_image = ConditionDropout(0.45, 0.25, 0.20, 0.10).sample(40_000, seeded(0))
    shares = [
        (keep_text & ~keep_image).float().mean(),
        (~keep_text & keep_image).float().mean(),
        (keep_text & keep_image).float().mean(),
        (~keep_text & ~keep_image).float().mean(),
    ]
    assert [float(s) for s in shares] == pytest.approx([0.45, 0.25, 0.20, 0.10], abs=0.01)
    with pytest.raises(ValueError, match=r"must add up to 1; got 1\.1"):
        ConditionDropout(none=0.2)
    for name, (text, image) in {"text": (True, False), "image": (False, True), "both": (True, True)}.items():
        only = {"text": 0.0, "image": 0.0, "both": 0.0, "none": 0.0, name: 1.0}
        kept = ConditionDropout(**only).sample(1000, seeded(1))
        assert kept[0].eq(text).all() and kept[1].eq(image).all()


def test_denoising_forgets_conditions_row_by_row_and_nothing_else() -> None:
    told: list[Condition] = []

    class Listener(nn.Module):
        def loss(self, x0: Tensor, cond: Condition, generator: torch.Generator) -> Tensor:
            told.append(cond)
            return x0.flatten(1).mean(1)

    n = 4000
    text = TextEmbedding(torch.ones(n, 2, 3), torch.ones(n, 2, dtype=torch.bool), torch.ones(n, 5))
    cond = Condition(text, image=torch.ones(n, 3), label=torch.ones(n, dtype=torch.long))
    losses = Denoising(Listener(), ConditionDropout(), label_drop=0.3)((torch.zeros(n, 1), cond), seeded(0))
    heard = told[0]
    assert losses.shape == (n,) and heard.text is not None and heard.image is not None and heard.label is not None
    kept_text = heard.text.mask.all(1)
    assert torch.equal(kept_text, heard.text.pooled.bool().all(1))
    assert torch.equal(kept_text, heard.text.tokens.bool().flatten(1).any(1))
    assert float(kept_text.float().mean()) == pytest.approx(0.65, abs=0.03)
    assert float(heard.image[:, 0].mean()) == pytest.approx(0.45, abs=0.03)
    assert float(heard.label.float().mean()) == pytest.approx(0.70, abs=0.03)
    Denoising(Listener())((torch.zeros(n, 1), cond), seeded(0))
    assert told[1] is cond
    Denoising(Listener(), ConditionDropout(), 0.5)((torch.zeros(n, 1), None), seeded(0))
    assert told[2] is None


def test_words_and_their_numbers_are_the_same_to_an_encoder_that_is_trained_along() -> None:
    class Listener(nn.Module):
        def loss(self, x0: Tensor, cond: Condition, generator: torch.Generator) -> Tensor:
            assert cond.text is not None
            return cond.text.pooled[:, 0]

    captions = ["a red cat", "a dog"]
    encoder = WordEncoder.of(captions, dim=16, heads=2)
    objective = JointDenoising(Listener(), encoder, ConditionDropout(1, 0, 0, 0))
    said, numbered = (
        objective((torch.zeros(2, 1), told), seeded(0)) for told in (captions, encoder.tokenize(captions))
    )
    assert torch.equal(said, numbered) and said.requires_grad and said[0] != said[1]


def test_of_a_schedule_in_steps_only_its_steps_are_trained_however_times_are_drawn() -> None:
    denoiser = NetDenoiser(MLP(), LinearSchedule(T=50), "v", time_sampling="logit-normal", time_shape=(1.0, 1.4))
    steps = 50 * denoiser.draw_times(1000, seeded(0), torch.device("cpu"))
    assert torch.allclose(steps, steps.round(), atol=1e-4) and steps.min() >= 1 and steps.max() <= 50


def test_saving_needs_a_place() -> None:
    config = TrainConfig(1, 2, save_every=1, progress=False)
    with pytest.warns(UserWarning, match="`save_every` needs a `folder` to save into"):
        train(Denoising(NetDenoiser(MLP(), CosineSchedule())), TensorSource(torch.ones(4, 2)), config, device="cpu")

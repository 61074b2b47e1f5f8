"""The training loop against hand-written arithmetic, and against bad numbers, clocks and dead processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minidiff.common import pick_device, seeded
from minidiff.training import (
    EMA,
    TensorSource,
    TrainConfig,
    fold_in,
    learning_rate_at,
    shuffled,
    train,
)


class Regression(nn.Module):
    """Fit y = first half of x from its second half: no noise, no dropout, so every number can be checked."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = seeded(seed)
        self.matrix = nn.Parameter(torch.randn(2, 2, generator=generator))
        self.bias = nn.Parameter(torch.randn(2, generator=generator))

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        x, _ = batch
        return (x[:, 2:] @ self.matrix.T + self.bias - x[:, :2]).square().mean(1)


def data(n: int = 64) -> Tensor:
    return torch.randn(n, 4, generator=seeded(1))


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 20, "batch_size": 8, "warmup": 5, "progress": False, **changes})


# --- the numbers -------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_over_the_warmup_stays_and_falls_to_zero_over_the_last_share() -> None:
    c = TrainConfig(steps=1000, batch_size=1, learning_rate=2.0, warmup=100, decay=0.4)
    rates = {step: learning_rate_at(c, step, step / 1000) for step in (0, 49, 99, 100, 600, 800, 999)}
    expected = {0: 0.02, 49: 1.0, 99: 2.0, 100: 2.0, 600: 2.0, 800: 1.0, 999: 0.005}
    assert rates == pytest.approx(expected)
    assert learning_rate_at(c, 5000, 1.0) == 0
    assert learning_rate_at(TrainConfig(steps=10, batch_size=1, warmup=0, decay=0), 0, 0.0) == 1e-3


@pytest.mark.parametrize(("answer", "steps"), [(True, 1), (1, 20), ("written", 20), (None, 20)])
def test_only_true_ends_a_run(answer: Any, steps: int) -> None:
    """What a function happens to return, as the number of characters that `write` wrote, is no wish to stop."""
    result = train(Regression(), TensorSource(data()), config(), device="cpu", on_step=lambda _: answer)
    assert result.step == steps


def by_hand(c: TrainConfig, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2), clipping and averaging, written out in float64."""
    model = Regression().double()
    weights = [model.matrix.detach().clone(), model.bias.detach().clone()]
    m, v = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    average = [w.clone() for w in weights]
    batches = [b for epoch in range(99) for b in shuffled(len(x), c.seed, epoch).split(c.batch_size)]
    batches = [b for b in batches if len(b) == c.batch_size]
    for n in range(c.steps):
        y, z = x[batches[n]].double()[:, :2], x[batches[n]].double()[:, 2:]
        error = z @ weights[0].T + weights[1] - y
        grads = [error.T @ z / len(z), error.mean(0)]
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        if c.clip_norm is not None and norm > c.clip_norm:
            grads = [g * c.clip_norm / norm for g in grads]
        rate = learning_rate_at(c, n, n / c.steps)
        for i, decay in enumerate((c.weight_decay, 0.0)):  # the bias is not decayed
            m[i] = c.betas[0] * m[i] + (1 - c.betas[0]) * grads[i]
            v[i] = c.betas[1] * v[i] + (1 - c.betas[1]) * grads[i] ** 2
            m_hat, v_hat = m[i] / (1 - c.betas[0] ** (n + 1)), v[i] / (1 - c.betas[1] ** (n + 1))
            weights[i] = weights[i] * (1 - rate * decay) - rate * m_hat / (v_hat.sqrt() + 1e-8)
            d = min(c.ema_decay, (1 + n) / (10 + n))
            average[i] = d * average[i] + (1 - d) * weights[i]
    return weights, average


@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_training_is_adamw_with_clipping_and_averaging_written_out_by_hand(clip_norm: float | None) -> None:
    c = config(steps=40, learning_rate=0.05, weight_decay=0.2, clip_norm=clip_norm, ema_decay=0.7)
    x = data(50)  # 6 batches of 8 an epoch, 2 samples dropped: 40 steps run into the 7th epoch
    result = train(Regression(), TensorSource(x), c, device="cpu")
    weights, average = by_hand(c, x)
    for got, want in zip(result.objective.parameters(), weights, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)
    for got, want in zip(result.ema_objective.parameters(), average, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)


def test_the_average_of_a_moving_weight_is_the_hand_written_one_and_the_early_decay_is_small() -> None:
    module = nn.Linear(1, 1, bias=False)
    ema = EMA(module, decay=0.9)
    shadow, decays = float(module.weight.detach()), []
    for n in range(200):
        with torch.no_grad():
            module.weight.fill_(math.sin(n))
        decays.append(ema.decay_now())
        ema.update()
        d = min(0.9, (1 + n) / (10 + n))
        shadow = d * shadow + (1 - d) * math.sin(n)
    assert decays[:2] == [1 / 10, 2 / 11] and decays[-1] == 0.9
    assert float(ema.shadow["weight"]) == pytest.approx(shadow, abs=1e-6)


def test_the_average_comes_in_a_copy_that_is_ready_to_sample_from() -> None:
    module = nn.Linear(2, 2)
    ema = EMA(module, 0.5)
    before = module.weight.detach().clone()
    with torch.no_grad():
        ema.shadow["weight"].fill_(7.0)
    twin: Any = ema.module()
    assert twin.weight.eq(7).all() and not twin.training and not twin.weight.requires_grad
    assert torch.equal(module.weight, before)


def test_frozen_parameters_stay_as_they_are() -> None:
    model = Regression()
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    twin: Any = train(model, TensorSource(data()), config(), device="cpu").ema_objective
    assert torch.equal(model.bias, before) and torch.equal(twin.bias, before)


def test_the_history_holds_the_mean_loss_between_entries() -> None:
    losses: list[float] = []
    model = Regression()
    model.register_forward_hook(lambda _m, _i, out: losses.append(float(out.detach().mean())))
    result = train(model, TensorSource(data()), config(steps=25, log_every=10), device="cpu")
    assert [entry["step"] for entry in result.history] == [10, 20, 25]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 10), (10, 20), (20, 25))]
    assert [entry["loss"] for entry in result.history] == pytest.approx(means, rel=1e-5)


def test_the_history_holds_the_mean_length_of_the_gradient_before_it_is_clipped() -> None:
    class Line(nn.Module):  # of slope 3, whatever the weight
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            return 3 * self.weight.expand(8)

    history = train(Line(), TensorSource(data()), config(steps=10, log_every=5, clip_norm=1.0), device="cpu").history
    assert [entry["grad_norm"] for entry in history] == pytest.approx([3, 3])


# --- the data ----------------------------------------------------------------------------------------------------


def test_every_epoch_shows_each_sample_once_in_another_order() -> None:
    seen: list[int] = []

    class Spy(TensorSource):
        def to(self, device: Any) -> Spy:
            return self

        def batch(self, indices: Tensor, generator: torch.Generator) -> Any:
            seen.extend(indices.tolist())
            return super().batch(indices, generator)

    train(Regression(), Spy(data(24)), config(steps=6), device="cpu")
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != seen[24:]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert torch.equal(shuffled(50, 3, 4), shuffled(50, 3, 4))
    orders = [tuple(shuffled(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25
    assert len({fold_in(a, b) for a in range(100) for b in range(100)}) > 9990


def test_a_seed_repeats_a_run_and_another_seed_does_not() -> None:
    def last(seed: int) -> Tensor:
        model = Regression()
        train(model, TensorSource(data()), config(seed=seed), device="cpu")
        return model.matrix

    assert torch.equal(last(0), last(0))
    assert not torch.equal(last(0), last(1))


def test_training_leaves_the_global_random_state_and_the_mode_as_found() -> None:
    class Wrapped(Regression):  # as `Denoising` wraps a denoiser that is ready to draw
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Dropout().eval()

    model, before = Wrapped(), torch.get_rng_state()
    train(model, TensorSource(data()), config(), device="cpu")
    assert torch.equal(torch.get_rng_state(), before) and model.training and not model.inner.training


def test_swapped_arguments_are_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"`objective` must be a module .*got TensorSource: it comes first"):
        train(TensorSource(data()), Regression(), config())  # type: ignore[arg-type]


# --- precision, compilation, configuration -----------------------------------------------------------------------


def test_bf16_computes_in_bf16_and_keeps_weights_and_averages_in_fp32() -> None:
    kinds: set[torch.dtype] = set()

    class Watched(Regression):
        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            kinds.add((batch[0][:, 2:] @ self.matrix).dtype)
            return super().forward(batch, generator)

    result = train(Watched(), TensorSource(data()), config(precision="bf16"), device="cpu")
    assert kinds == {torch.bfloat16}
    assert {t.dtype for t in [*result.objective.parameters(), *result.ema.shadow.values()]} == {torch.float32}


def test_compiled_parts_keep_their_names(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = nn.Linear(4, 1)
            self.net = torch.compile(inner, backend="eager")

        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            return self.net(batch[0]).square().mean()

    result = train(Wrapped(), TensorSource(data()), config(steps=2), folder=tmp_path, device="cpu")
    assert set(result.ema.shadow) == {"net.weight", "net.bias"}
    assert set(load_file(tmp_path / "step-00000002" / "weights.safetensors")) == {"net.weight", "net.bias"}
    plain = nn.Module()
    plain.net = nn.Linear(4, 1)
    result.ema.copy_to(plain)
    assert torch.equal(plain.net.weight, result.ema.shadow["net.weight"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "`steps` must be an integer from 1"),
        ({"batch_size": -1}, "`batch_size` must be an integer from 1"),
        ({"learning_rate": math.nan}, "`learning_rate` must be a number"),
        ({"betas": (0.9, 1.0)}, "`betas` must be a number"),
        ({"betas": 0.9}, "`betas` must be two numbers"),
        ({"decay": 1.5}, "`decay` must be a number from 0 to 1"),
        ({"minutes": 0}, "`minutes` must be a number"),
        ({"precision": "bf61"}, "Did you mean 'bf16'?"),
        ({"keep": 0}, "`keep` must be an integer from 1"),
        ({"clip_norm": 0}, "`clip_norm` must be a number"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        config(**changes)


def test_an_epoch_smaller_than_a_batch_and_an_objective_without_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"at most the number of samples in an epoch \(5\).*got 8: use a smaller"):
        train(Regression(), TensorSource(data(5)), config(), device="cpu")
    with pytest.raises(ValueError, match="must have a parameter that requires a gradient"):
        train(Regression().requires_grad_(False), TensorSource(data()), config(), device="cpu")


def test_a_device_is_named_or_given_as_torch_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device(torch.device("cpu")) == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"`device` must be one of .*cpu; got 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps:0") == torch.device("mps:0")  # as a tensor there says


def test_a_source_takes_tensors_and_says_what_label_0_means() -> None:
    with pytest.raises(ValueError, match=r"`x` and `labels` must be tensors; torch\.as_tensor makes them"):
        TensorSource(data().numpy())  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="`labels` holds 0, which means no label: count classes from 1"):
        TensorSource(data(3), torch.tensor([0, 1, 2]))

"""What runs at every step never looks at a value on the device, which a GPU would be waited for.

On the device "meta" tensors have no values: whatever looks at one raises an error, on every machine.
"""

from contextlib import nullcontext

import pytest
import torch

from minidiff import presets
from minidiff.checkpoints import load_clip
from minidiff.common import Condition
from minidiff.data.emoji import load_emoji
from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser
from minidiff.guidance import Guided
from minidiff.nets import MLP
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.recipes_look import Collection
from minidiff.samplers import STEPS
from minidiff.schedules import CosineSchedule, RectifiedFlow, posterior
from minidiff.training import Denoising
from minidiff.training.objectives import ConditionDropout

X = torch.zeros(4, 2, device="meta")
LABELS = Condition(label=torch.zeros(4, dtype=torch.long, device="meta"))
SCHEDULES = {"cosine": CosineSchedule, "flow": RectifiedFlow}


def on_meta(schedule: str, kind: str, labels: int = 0) -> NetDenoiser:
    return NetDenoiser(MLP(labels=labels).to("meta"), SCHEDULES[schedule](), kind).eval()


def test_looking_at_a_value_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        bool((X > 0).any())


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_prediction_and_a_loss(schedule: str, kind: str) -> None:
    denoiser = on_meta(schedule, kind)
    times = torch.full((4,), 0.5, device="meta")
    assert denoiser(X, times).x0.shape == X.shape
    assert denoiser.train().loss(X, t=times).shape == (4,)
    assert Denoising(denoiser)((X, None), torch.Generator()).shape == (4,)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", STEPS)
def test_every_step(schedule: str, name: str) -> None:
    denoiser = on_meta(schedule, "eps", labels=3)
    guided = Guided(denoiser, scale=3.0)
    memory = None
    for t, s in ((0.9, 0.5), (0.5, 0.2), (0.2, 0.0)):
        x, memory = STEPS[name](guided, X, t, s, LABELS, memory=memory)
        assert x.shape == X.shape
    for t, s in ((0.9, 0.5), (0.2, 0.0)):  # times that lie on the device
        late, early = (torch.tensor(u, device="meta") for u in (t, s))
        assert STEPS[name](denoiser, X, late, early)[0].shape == X.shape


def test_a_step_back_that_is_known() -> None:
    late, early = (torch.tensor([u] * 4, device="meta") for u in (0.5, 0.2))
    mean, std = posterior(RectifiedFlow(), X, X, late, early)
    assert (mean.shape, std.shape) == ((4, 2), (4, 1))


@pytest.mark.parametrize("name", ["clip", "emoji-64", "teaching", "shapes-cpu"])
def test_a_batch_and_its_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "fingerprint", lambda module: "")  # a hash, once before the start
    monkeypatch.setattr(presets, "CAPTIONS", 2)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    job = presets.PRESETS[name].build(torch.device("meta"), None)
    generator = torch.Generator()
    batch = job.source.batch(job.source.order(0, 0)[:4], generator)
    assert job.objective.to("meta").train()(batch, generator).mean().device.type == "meta"


def test_a_batch_of_the_look() -> None:
    clip = load_clip("emoji-64").to("meta")
    source, generator = Collection(load_emoji(), clip, device="meta"), torch.Generator()
    net = UNet(UNetConfig(context_dim=clip.dim, pooled_dim=clip.pooled_dim, image_dim=clip.pooled_dim)).to("meta")
    objective = Denoising(NetDenoiser(net, RectifiedFlow(), "flow"), ConditionDropout())
    batch = source.batch(source.order(0, 0)[:4], generator)
    assert objective(batch, generator).shape == (4,)

"""Apple's GPUs have no float64: what runs there must not ask for it. Checked with a stand-in for such a device."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from minidiff.common import seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.samplers import STEPS, sample
from minidiff.schedules import SCHEDULES, make_schedule, markov_step, posterior, time_grid

MPS = torch.device("mps")


def is_mps(argument):
    return isinstance(argument, str | torch.device) and str(argument) == "mps"


class PretendMPS(TorchFunctionMode):
    """While active, tensors made on or moved to "mps" are said to live there: no float64, no mixing with the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [leaf for leaf in given if getattr(leaf, "on_mps", False)]
        if func == torch.Tensor.device.__get__:
            return MPS if here else func(*args)
        moved = func in (torch.Tensor.to, torch.Tensor.cpu)
        if here and not moved and any(leaf.dim() and not getattr(leaf, "on_mps", False) for leaf in given):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        named = [str(a) for a in (*args, kwargs.get("device")) if isinstance(a, str | torch.device)]
        args, kwargs = tree_map(lambda a: "cpu" if is_mps(a) else a, (args, kwargs))
        result = func(*args, **kwargs)
        result = result.clone() if moved else result
        on_mps = "mps" in named or (bool(here) and "cpu" not in named and func is not torch.Tensor.cpu)
        for leaf in tree_leaves(result) if on_mps else []:
            if isinstance(leaf, torch.Tensor):
                if leaf.dtype == torch.float64:
                    raise TypeError(f"{func}: cannot convert a MPS tensor to float64")
                leaf.on_mps = True  # type: ignore[attr-defined]
        return result


@pytest.fixture
def mps():
    with PretendMPS():
        yield


def test_the_stand_in_refuses_what_the_device_refuses(mps):
    x = torch.ones(2).to("mps")
    assert x.device == MPS == (x + 1).device and x.cpu().device == torch.zeros(2).device
    for forbidden in (lambda: x.double(), lambda: x.to(torch.float64), lambda: torch.zeros(2).double().to("mps")):
        with pytest.raises(TypeError, match="float64"):
            forbidden()
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_answer_there_what_they_answer_elsewhere(mps, name):
    schedule, t = make_schedule(name), torch.linspace(0, 1, 101)
    for ask in (schedule.alpha, schedule.sigma, schedule.alpha_bar, schedule.log_snr):
        there = ask(t.to("mps"))
        assert there.device == MPS and torch.equal(there.cpu(), ask(t))
    x, late, early = torch.randn(3, 2, generator=seeded(0)), torch.full((3,), 0.6), torch.full((3,), 0.4)
    here, there = (
        (markov_step(schedule, *to(x, early, late, x)), *posterior(schedule, *to(x, x, late, early)))
        for to in (lambda *tensors: tensors, lambda *tensors: [tensor.to("mps") for tensor in tensors])
    )
    for a, b in zip(here, there, strict=True):
        assert b.device == MPS and torch.equal(a, b.cpu())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", STEPS)
def test_samplers_and_losses_run_there_and_draw_what_they_draw_elsewhere(mps, name, step):
    schedule, x = make_schedule(name), torch.randn(4, 2, generator=seeded(1))
    times = time_grid(schedule, 5)
    drawn = []
    for device in ("cpu", "mps"):
        torch.manual_seed(0)
        net = MLP()
        for p in net.parameters():
            p.on_mps = device == "mps"  # type: ignore[attr-defined]
        denoiser = NetDenoiser(net, schedule, "v", weighting="min-snr")
        assert denoiser.loss(x.to(device), generator=seeded(3)).device.type == device
        *_, end = sample(STEPS[step], denoiser, x.to(device), times, generator=seeded(2))
        drawn.append(end)
    assert drawn[1].device == MPS and torch.equal(drawn[0], drawn[1].cpu())

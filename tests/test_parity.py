"""Where minidiff and `diffusers` define the same formula, they agree to 1e-5."""

import pytest
import torch

from minidiff.common import randn, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.samplers import STEPS, ddim_step, sample
from minidiff.schedules import CosineSchedule, LinearSchedule, forward_jump

diffusers = pytest.importorskip("diffusers")
T = 1000
NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
SCHEDULES = {"linear": LinearSchedule(T), "cosine": CosineSchedule(T)}
each_schedule = pytest.mark.parametrize("name", NAMES)
KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
each_kind = pytest.mark.parametrize("kind", KINDS)


def theirs(cls, name, kind="eps", **options):
    scheduler = cls(T, beta_schedule=NAMES[name], prediction_type=KINDS[kind], **options)
    # Their betas, and so their table, are float32, which costs up to 2e-4 in a DDPM step. The betas have a test of
    # their own; with the same table in float64 the others compare nothing but the formulas.
    scheduler.alphas_cumprod = (1 - SCHEDULES[name].betas).cumprod(0)
    return scheduler


class Net64(MLP):
    """A network that computes in float32 and answers in float64, so that only the formulas are compared."""

    def forward(self, x, t, cond=None):
        return super().forward(x.float(), t, cond).double()


def network(name, kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NetDenoiser(Net64(dim=2, width=32, depth=2), SCHEDULES[name], kind)


def ours_of(timesteps):
    """Their step i (0 ... T - 1) is our time (i + 1) / T; after the last comes data, at time 0."""
    return torch.cat([(timesteps.double() + 1) / T, torch.zeros(1)]).float()


def walk(scheduler, denoiser, x, **options):
    """Their loop, with our network."""
    for i in scheduler.timesteps:
        t = ((i + 1) / T).float().expand(len(x))
        with torch.no_grad():
            x = scheduler.step(denoiser.net(x, t, None), i, x, **options).prev_sample
    return x


def noise():
    return randn((32, 2), seeded(0)).double()


def assert_close(a, b, size):
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(size.abs().max()))


@each_schedule
def test_betas(name):
    betas = theirs(diffusers.DDPMScheduler, name).betas
    assert float((SCHEDULES[name].betas - betas).abs().max()) <= 1e-7


@each_schedule
def test_the_forward_jump(name):
    x0, eps = noise(), randn((32, 2), seeded(1)).double()
    for i in (0, 1, 400, 998):
        theirs_x = theirs(diffusers.DDPMScheduler, name).add_noise(x0, eps, torch.full((32,), i))
        ours_x = forward_jump(SCHEDULES[name], x0, torch.full((32,), (i + 1) / T), eps)
        assert_close(ours_x, theirs_x, theirs_x)


@each_schedule
@each_kind
def test_the_ddpm_step(name, kind):
    """Single steps, and steps that skip: mean and noise of the ancestral sampler.

    Not the ten steps next to the noise end: the cosine schedule is so steep there that the rounding of our float32
    times, 6e-8, moves x_s by up to 2e-4.
    """
    denoiser = network(name, kind)
    for steps in (1000, 50):
        scheduler = theirs(diffusers.DDPMScheduler, name, kind, variance_type="fixed_small", clip_sample=False)
        scheduler.set_timesteps(steps)
        times = ours_of(scheduler.timesteps)
        for j in (10, steps // 2, steps - 2, steps - 1):
            x, i = noise(), scheduler.timesteps[j]
            with torch.no_grad():
                output = denoiser.net(x, times[j].expand(32), None)
                got, _ = STEPS["ddpm"](denoiser, x, times[j], times[j + 1], generator=seeded(2))
            drawn = torch.randn(32, 2, generator=seeded(2))
            mean = scheduler.step(output, i, x, generator=seeded(3)).prev_sample
            if i > 0:  # take out the noise it drew, put in ours
                other = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
                std = scheduler._get_variance(int(i)).sqrt()
                mean = mean + std * (drawn - other)
            assert_close(got, mean, mean)


@each_schedule
@each_kind
def test_the_ddim_walk(name, kind):
    denoiser = network(name, kind)
    for steps in (5, 20, 50):
        scheduler = theirs(diffusers.DDIMScheduler, name, kind, clip_sample=False, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        times = ours_of(scheduler.timesteps)  # T is divisible by steps, or their step back were T // steps
        wanted = walk(scheduler, denoiser, noise(), eta=0.0)
        *_, got = sample(ddim_step, denoiser, noise(), times)
        assert_close(got, wanted, wanted)


@each_schedule
def test_the_ddim_noise(name):
    """eta scales the fresh noise in the same way."""
    denoiser = network(name, "eps")
    scheduler = theirs(diffusers.DDIMScheduler, name, clip_sample=False)
    scheduler.set_timesteps(20)
    x, i, fresh = noise(), scheduler.timesteps[7], torch.randn(32, 2, generator=seeded(5))
    times = ours_of(scheduler.timesteps)
    with torch.no_grad():
        output = denoiser.net(x, times[7].expand(32), None)
        got, _ = ddim_step(denoiser, x, times[7], times[8], eta=0.6, generator=seeded(5))
    wanted = scheduler.step(output, i, x, eta=0.6, variance_noise=fresh.double()).prev_sample
    assert_close(got, wanted, wanted)


@each_schedule
@each_kind
def test_the_dpm_solver_walk(name, kind):
    denoiser = network(name, kind)
    for steps in (2, 5, 20, 50):
        scheduler = theirs(
            diffusers.DPMSolverMultistepScheduler,
            name,
            kind,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            final_sigmas_type="zero",
            timestep_spacing="linspace",
        )
        scheduler.set_timesteps(steps)
        wanted = walk(scheduler, denoiser, noise())
        *_, got = sample(STEPS["dpmpp_2m"], denoiser, noise(), ours_of(scheduler.timesteps))
        assert_close(got, wanted, wanted)

"""The mathematics of the live demos is minidiff's, number by number."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from browser import Page
from demo_numbers import DATA, IN_JS, SCRIPTS, close, demo_data, mixture_of

from minidiff.common import Condition, randn, seeded
from minidiff.guidance import Guided
from minidiff.samplers import ddim_step, ddpm_step, sample
from minidiff.schedules import make_schedule, time_grid
from minidiff.toy import ExactDenoiser

pytestmark = pytest.mark.browser


@pytest.fixture
def script(page: Page) -> Page:
    """An empty page that knows diffusion.js and data.js."""
    for name in ("diffusion", "data"):
        page.run((SCRIPTS / f"{name}.js").read_text(encoding="utf-8") + "; 0")
    return page


def _points(n: int, seed: int = 0) -> torch.Tensor:
    return randn((n, 2), seeded(seed)).double() * 1.2


def test_the_data_are_those_of_the_library() -> None:
    assert DATA["mixtures"].keys() == demo_data.mixtures().keys()
    for name, mixture in demo_data.mixtures().items():
        for key, values in mixture.items():
            assert np.allclose(DATA["mixtures"][name][key], values, atol=1e-12), "run book/tools/demo_data.py"
    shown = np.frombuffer(base64.b64decode(DATA["fox"]), np.uint8).astype(int)
    assert np.abs(shown - demo_data.fox().ravel()).max() <= 2, "run book/tools/demo_data.py"


@pytest.mark.parametrize("name", IN_JS)
def test_a_schedule_is_the_library_s_at_every_time(name: str, script: Page) -> None:
    schedule, t = make_schedule(name), torch.linspace(0, 1, 1234, dtype=torch.float64)
    inner = t[(t > 0.001) & (t < 0.999)]
    for what, times in (("alpha", t), ("sigma", t), ("logSnr", inner)):
        ask = "diffusion.logSnr(s, t)" if what == "logSnr" else f"s.{what}(t)"
        got = script.run(f"{{ const s = diffusion.{IN_JS[name]}(); {times.tolist()}.map(t => {ask}) }}")
        wanted = schedule.log_snr(times) if what == "logSnr" else getattr(schedule, what)(times)
        assert close(got, wanted, 1e-9)
    for steps in (1, 7, 1000):
        got = script.run(f"diffusion.timeGrid(diffusion.{IN_JS[name]}(), {steps})")
        assert close(got, time_grid(schedule, steps), 1e-7)


def test_a_curve_of_one_s_own_is_monotone_and_keeps_its_points(script: Page) -> None:
    from scipy.interpolate import PchipInterpolator

    t = np.linspace(0, 1, 401)
    for values in ([1, 0.95, 0.8, 0.3, 0.05, 0], [1, 1, 1, 0.9, 0, 0], [1, 0.2, 0.15, 0.1, 0.05, 0.01]):
        ask = f"const s = diffusion.curveSchedule({values}); {t.tolist()}.map(t => s.alpha(t) ** 2)"
        got = np.array(script.run(f"{{ {ask} }}"))
        assert np.allclose(got, PchipInterpolator(np.linspace(0, 1, 6), values)(t), atol=1e-9)
        assert (np.diff(got) <= 1e-12).all()


@pytest.mark.parametrize("name", DATA["mixtures"])
@pytest.mark.parametrize("kind", IN_JS)
def test_the_denoiser_is_exact(name: str, kind: str, script: Page) -> None:
    mixture, schedule = mixture_of(name), make_schedule(kind)
    exact, x = ExactDenoiser(mixture, schedule), _points(40)
    for t in (0.0078125, 0.25, 0.5, 0.984375):  # exact in single precision
        ask = f"diffusion.exactDenoiser(demoData.mixtures.{name}, diffusion.{IN_JS[kind]}())"
        got = script.run(f"{{ const d = {ask}; {x.tolist()}.map(x => d.predict(x, {t})) }}")
        wanted = exact(x, t)
        assert close([g["x0"] for g in got], wanted.x0)
        assert close([g["eps"] for g in got], wanted.eps)
        noised = f"diffusion.noised(demoData.mixtures.{name}, diffusion.{IN_JS[kind]}(), {t})"
        height = script.run(f"{{ const m = {noised}; {x.tolist()}.map(x => diffusion.logProb(m, x)) }}")
        assert close(height, mixture.noised(schedule, t).log_prob(x), 1e-4)


@pytest.mark.parametrize("name", ["moons", "arms"])
def test_a_ddim_trajectory_is_the_library_s_from_noise_to_data(name: str, script: Page) -> None:
    schedule, x = make_schedule("cosine"), _points(20, 1)
    times = time_grid(schedule, 25)
    wanted = [x, *sample(ddim_step, ExactDenoiser(mixture_of(name), schedule), x, times)]
    got = script.run(f"""{{
        const denoiser = diffusion.exactDenoiser(demoData.mixtures.{name}, diffusion.cosineSchedule());
        diffusion.sample(diffusion.ddimStep, denoiser, {x.tolist()}, {times.tolist()})
    }}""")
    assert close(got, torch.stack(wanted))


def test_a_ddpm_step_has_the_library_s_mean_and_spread(script: Page) -> None:
    schedule, x = make_schedule("cosine"), _points(1)
    exact = ExactDenoiser(mixture_of("moons"), schedule)
    for t, s in ((0.75, 0.5), (0.25, 0.0)):
        ask = (
            f"diffusion.exactDenoiser(demoData.mixtures.moons, diffusion.cosineSchedule()), {x[0].tolist()}, {t}, {s}"
        )
        middle, above = (np.array(script.run(f"diffusion.ddpmStep({ask}, 0, () => {z})")) for z in (0, 1))
        drawn, _ = ddpm_step(exact, x.expand(20_000, 2), t, s, generator=seeded(0))
        spread = above - middle
        assert np.abs(drawn.mean(0).numpy() - middle).max() < 5 * spread.max() / 20_000**0.5 + 1e-5
        assert np.allclose(drawn.std(0).numpy(), spread, rtol=0.03, atol=1e-5)


@pytest.mark.parametrize(("scale", "negative"), [(0, 0), (1, 0), (4.5, 0), (3, 2)])
def test_the_guided_prediction_is_the_library_s(scale: float, negative: int, script: Page) -> None:
    schedule, x = make_schedule("cosine"), _points(30)
    null = Condition(label=torch.tensor([negative]))
    guided = Guided(ExactDenoiser(mixture_of("arms"), schedule), null=null, scale=scale)
    for t in (0.125, 0.75):
        wanted = guided(x, t, Condition(label=torch.tensor([1])))
        got = script.run(f"""{{
            const exact = diffusion.exactDenoiser(demoData.mixtures.arms, diffusion.cosineSchedule());
            const denoiser = diffusion.guided(exact, {scale}, {negative});
            {x.tolist()}.map(x => denoiser.predict(x, {t}, 1))
        }}""")
        assert close([g["x0"] for g in got], wanted.x0)
        assert close([g["eps"] for g in got], wanted.eps)


def test_its_random_numbers_are_normal(script: Page) -> None:
    from scipy.stats import kstest

    z = script.run("{ const z = diffusion.normals(3); Array.from({length: 20000}, z) }")
    assert kstest(z, "norm").pvalue > 0.001
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.03
    assert z[:5] != script.run("{ const z = diffusion.normals(4); Array.from({length: 5}, z) }")

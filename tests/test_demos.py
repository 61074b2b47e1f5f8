"""The live demos: their mathematics is minidiff's, number by number, and each answers to mouse and keyboard."""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from browser import ROOT, Page
from PIL import Image

from minidiff.common import Condition, randn, seeded
from minidiff.guidance import Guided
from minidiff.samplers import ddim_step, ddpm_step, sample
from minidiff.schedules import make_schedule, time_grid
from minidiff.toy import ExactDenoiser, Mixture

sys.path.insert(0, str(ROOT / "book" / "tools"))

import demo_data

SCRIPTS = ROOT / "book" / "_static" / "demos"
DATA = json.loads((SCRIPTS / "data.js").read_text(encoding="utf-8").removeprefix(demo_data.HEAD).rstrip(";\n"))
IN_JS = {"linear": "linearSchedule", "cosine": "cosineSchedule", "flow": "rectifiedFlow"}

pytestmark = pytest.mark.browser


@pytest.fixture
def script(page: Page) -> Page:
    """An empty page that knows diffusion.js and data.js."""
    for name in ("diffusion", "data"):
        page.run((SCRIPTS / f"{name}.js").read_text(encoding="utf-8") + "; 0")
    return page


def _mixture(name: str) -> Mixture:
    data = DATA["mixtures"][name]
    return Mixture(data["weights"], data["means"], data["stds"], data["labels"])


def _points(n: int, seed: int = 0) -> torch.Tensor:
    return randn((n, 2), seeded(seed)).double() * 1.2


def _close(got: Any, wanted: torch.Tensor, within: float = 1e-5) -> bool:
    return np.allclose(np.array(got, dtype=float), wanted.double().numpy(), rtol=within, atol=within)


def test_the_data_are_those_of_the_library() -> None:
    assert DATA["mixtures"].keys() == demo_data.mixtures().keys()
    for name, mixture in demo_data.mixtures().items():
        for key, values in mixture.items():
            assert np.allclose(DATA["mixtures"][name][key], values, atol=1e-12), "run book/tools/demo_data.py"
    shown = Image.open(io.BytesIO(base64.b64decode(DATA["fox"].split(",")[1])))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(demo_data.fox())).max() <= 2


@pytest.mark.parametrize("name", IN_JS)
def test_a_schedule_is_the_library_s_at_every_time(name: str, script: Page) -> None:
    schedule, t = make_schedule(name), torch.linspace(0, 1, 1234, dtype=torch.float64)
    inner = t[(t > 0.001) & (t < 0.999)]
    for what, times in (("alpha", t), ("sigma", t), ("logSnr", inner)):
        ask = "diffusion.logSnr(s, t)" if what == "logSnr" else f"s.{what}(t)"
        got = script.run(f"{{ const s = diffusion.{IN_JS[name]}(); {times.tolist()}.map(t => {ask}) }}")
        wanted = schedule.log_snr(times) if what == "logSnr" else getattr(schedule, what)(times)
        assert _close(got, wanted, 1e-9)
    for steps in (1, 7, 1000):
        got = script.run(f"diffusion.timeGrid(diffusion.{IN_JS[name]}(), {steps})")
        assert _close(got, time_grid(schedule, steps), 1e-7)


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
    mixture, schedule = _mixture(name), make_schedule(kind)
    exact, x = ExactDenoiser(mixture, schedule), _points(40)
    for t in (0.0078125, 0.25, 0.5, 0.984375):  # exact in single precision
        ask = f"diffusion.exactDenoiser(demoData.mixtures.{name}, diffusion.{IN_JS[kind]}())"
        got = script.run(f"{{ const d = {ask}; {x.tolist()}.map(x => d.predict(x, {t})) }}")
        wanted = exact(x, t)
        assert _close([g["x0"] for g in got], wanted.x0)
        assert _close([g["eps"] for g in got], wanted.eps)
        noised = f"diffusion.noised(demoData.mixtures.{name}, diffusion.{IN_JS[kind]}(), {t})"
        height = script.run(f"{{ const m = {noised}; {x.tolist()}.map(x => diffusion.logProb(m, x)) }}")
        assert _close(height, mixture.noised(schedule, t).log_prob(x), 1e-4)


@pytest.mark.parametrize("name", ["moons", "arms"])
def test_a_ddim_trajectory_is_the_library_s_from_noise_to_data(name: str, script: Page) -> None:
    schedule, x = make_schedule("cosine"), _points(20, 1)
    times = time_grid(schedule, 25)
    wanted = [x, *sample(ddim_step, ExactDenoiser(_mixture(name), schedule), x, times)]
    got = script.run(f"""{{
        const denoiser = diffusion.exactDenoiser(demoData.mixtures.{name}, diffusion.cosineSchedule());
        diffusion.sample(diffusion.ddimStep, denoiser, {x.tolist()}, {times.tolist()})
    }}""")
    assert _close(got, torch.stack(wanted))


def test_a_ddpm_step_has_the_library_s_mean_and_spread(script: Page) -> None:
    schedule, x = make_schedule("cosine"), _points(1)
    exact = ExactDenoiser(_mixture("moons"), schedule)
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
    guided = Guided(ExactDenoiser(_mixture("arms"), schedule), null=null, scale=scale)
    for t in (0.125, 0.75):
        wanted = guided(x, t, Condition(label=torch.tensor([1])))
        got = script.run(f"""{{
            const exact = diffusion.exactDenoiser(demoData.mixtures.arms, diffusion.cosineSchedule());
            const denoiser = diffusion.guided(exact, {scale}, {negative});
            {x.tolist()}.map(x => denoiser.predict(x, {t}, 1))
        }}""")
        assert _close([g["x0"] for g in got], wanted.x0)
        assert _close([g["eps"] for g in got], wanted.eps)


def test_its_random_numbers_are_normal(script: Page) -> None:
    from scipy.stats import kstest

    z = script.run("{ const z = diffusion.normals(3); Array.from({length: 20000}, z) }")
    assert kstest(z, "norm").pvalue > 0.001
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.03
    assert z[:5] != script.run("{ const z = diffusion.normals(4); Array.from({length: 5}, z) }")


def _open(page: Page, address: str, chapter: str, name: str) -> str:
    """Open a chapter, scroll to its demo, and wait until it is there; returns how to address it in JavaScript."""
    page.open(f"{address}/notebooks/{chapter}.html")
    demo = f"document.querySelector('#demo-{name}')"
    assert page.run(f"{demo}.demo === undefined"), "it worked before anybody saw it"
    page.run(f"{demo}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    page.run(f"new Promise(done => (function look() {{ {demo}.demo ? done(1) : setTimeout(look, 20) }})())")
    return demo


PIXELS = "document.querySelector('#demo-{} canvas').toDataURL()"


def _control(page: Page, name: str, label: str) -> str:
    """The control of a demo that goes by this name."""
    labels = f"[...document.querySelectorAll('#demo-{name} label')]"
    return f"{labels}.find(l => l.textContent.startsWith({label!r})).querySelector('input, select')"


def _choose(page: Page, name: str, label: str, value: str | float) -> None:
    control = _control(page, name, label)
    page.run(f"{control}.value = {value!r}")
    for event in ("input", "change"):
        page.run(f"{control}.dispatchEvent(new Event('{event}'))")


def test_the_schedules_demo_shows_the_fox_as_the_library_noises_it(page: Page, address: str) -> None:
    demo = _open(page, address, "02_forward", "schedules")
    page.run(
        f"new Promise(done => (function look() {{ {demo}.demo.state().ready ? done(1) : setTimeout(look, 20) }})())"
    )
    eps = page.run("{ const z = diffusion.normals(7); Array.from({length: 64 * 64 * 3}, z) }")
    fox = torch.from_numpy(np.asarray(demo_data.fox()).astype(np.float64)) / 127.5 - 1
    for name in IN_JS:
        _choose(page, "schedules", "Schedule", name)
        schedule = make_schedule(name)
        for place, time in ((1, 0.2), (3, 0.6)):
            t = torch.tensor(time, dtype=torch.float64)
            x_t = schedule.alpha(t) * fox + schedule.sigma(t) * torch.tensor(eps).view(64, 64, 3)
            surface = f"{demo}.querySelectorAll('.demo-strip canvas')[{place}]"
            shown = page.run(f"[...{surface}.getContext('2d').getImageData(0, 0, 64, 64).data]")
            wanted = ((x_t.clamp(-1, 1) + 1) * 127.5).round()
            assert (torch.tensor(shown).view(64, 64, 4)[:, :, :3] - wanted).abs().max() <= 2, (name, time)
            assert abs(page.run(f"{demo}.demo.state().logSnr[{place}]") - schedule.log_snr(t)) < 1e-9


def test_the_curve_is_bent_by_mouse_and_by_keyboard_and_never_rises(page: Page, address: str) -> None:
    demo = _open(page, address, "02_forward", "schedules")
    values = f"{demo}.demo.state().values"
    before = page.run(values)
    page.drag("#demo-schedules .demo-handle:nth-of-type(2)", (0.5, 0.35), (0.5, 0.9))
    bent = page.run(values)
    assert page.run(f"{demo}.demo.state().name") == "own"
    assert bent[2] < 0.2 < before[2]
    assert bent == sorted(bent, reverse=True)
    assert "signal until t = 0.2" in page.run(f"{demo}.querySelector('[role=status]').textContent")
    picture = "document.querySelectorAll('#demo-schedules .demo-strip canvas')[5].toDataURL()"
    shown = page.run(picture)
    page.run(f"{demo}.querySelectorAll('.demo-handle')[4].focus()")
    for _ in range(30):
        page.press("ArrowUp")
    risen = page.run(values)
    assert abs(risen[5] - 0.3 - bent[5]) < 0.011
    assert risen == sorted(risen, reverse=True)
    assert page.run(picture) != shown


def test_the_flow_demo_walks_from_noise_to_data(page: Page, address: str) -> None:
    demo = _open(page, address, "03_reverse", "flow")
    state = f"{demo}.demo.state()"
    start = page.run(PIXELS.format("flow"))
    page.run(f"{_control(page, 'flow', 'Time')}.focus()")
    page.press("End")
    assert page.run(f"{state}.t") == 0
    assert page.run(PIXELS.format("flow")) != start
    assert page.run(f"{state}.onData") > 0.95
    _choose(page, "flow", "Time", 700)
    for label, value in (("Data", "rings"), ("Walk", "ddpm"), ("Arrows", "score"), ("Arrows", "x0"), ("Steps", 0)):
        before = page.run(PIXELS.format("flow"))
        _choose(page, "flow", label, value)
        assert page.run(PIXELS.format("flow")) != before, label
    _choose(page, "flow", "Time", 1000)
    assert page.run(f"{state}.steps") == 1
    rings = DATA["mixtures"]["rings"]
    assert _close(page.run(f"{state}.end[0]"), torch.tensor(np.average(rings["means"], axis=0)), 0.02)
    assert page.run(f"{demo}.querySelector('[role=status]').textContent").startswith("After 1 step, 0 %")


def test_a_point_is_dropped_by_mouse_and_by_keyboard_and_runs_to_the_data(page: Page, address: str) -> None:
    demo = _open(page, address, "03_reverse", "flow")
    mine = f"{demo}.demo.state().mine"
    page.drag("#demo-flow canvas", (0.75, 0.5))
    assert _close(page.run(f"{mine}[0].from"), torch.tensor([1.0, 0.0]), 0.02)
    page.run(f"{demo}.querySelector('canvas').focus()")
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Enter"):
        page.press(key)
    assert _close(page.run(f"{mine}[1].from"), torch.tensor([-0.1, 0.2]))
    ends = torch.tensor(page.run(f"{mine}.map(point => point.path.at(-1))"))
    moons = torch.tensor(DATA["mixtures"]["moons"]["means"])
    assert torch.cdist(ends, moons.float()).min(1).values.max() < 0.2


def _guidance(page: Page, address: str) -> str:
    """Put the guidance demo onto a page that has none, as the extension would."""
    page.open(f"{address}/book/notation.html")
    figure = '<figure class="demo" id="demo-guidance" data-demo="guidance"><div class="demo-place"></div></figure>'
    page.run(f"document.querySelector('.bd-article').insertAdjacentHTML('afterbegin', {figure!r})")
    for name in ("diffusion", "data", "stage", "guidance"):
        page.run((SCRIPTS / f"{name}.js").read_text(encoding="utf-8") + "; 0")
    demo = "document.querySelector('#demo-guidance')"
    page.run(f"new Promise(done => (function look() {{ {demo}.demo ? done(1) : setTimeout(look, 20) }})())")
    return demo


def test_the_guidance_demo_s_samples_and_numbers_are_the_library_s(page: Page, address: str) -> None:
    demo = _guidance(page, address)
    mixture, schedule = _mixture("arms"), make_schedule("cosine")
    assert mixture.labels is not None
    noise = page.run("{ const z = diffusion.normals(1); Array.from({length: 600}, z) }")
    start, times = torch.tensor(noise, dtype=torch.float64).view(300, 2), time_grid(schedule, 40)
    seen = {}
    for scale, negative in ((0, 0), (1, 0), (4, 0), (8, 0), (4, 2)):
        _choose(page, "guidance", "Away", str(negative))
        _choose(page, "guidance", "Scale", scale)
        state = page.run(f"{demo}.demo.state()")
        guided = Guided(ExactDenoiser(mixture, schedule), Condition(label=torch.tensor([negative])), scale)
        *_, end = sample(ddim_step, guided, start, times, Condition(label=torch.tensor([1])))
        assert _close(state["end"], end, 1e-4)
        mine = mixture.labels == 1
        likeliest = ExactDenoiser(mixture, schedule).responsibilities(end, 0.0)[:, mine].sum(1) > 0.5
        far = (torch.cdist(end, mixture.means[mine]) > 3.03 * mixture.stds[mine]).all(1)
        true = Mixture(mixture.weights[mine], mixture.means[mine], mixture.stds[mine])
        spread = (end.var(0, correction=0).sum() / (2 * true.variance())).sqrt()
        assert abs(state["inside"] - likeliest.double().mean()) < 0.02
        assert abs(state["outside"] - far.double().mean()) < 0.01
        assert abs(state["spread"] - spread) < 1e-3
        seen[scale, negative] = state
    ignored, plain, strong = seen[0, 0], seen[1, 0], seen[8, 0]
    assert ignored["inside"] < 0.5 < 0.85 < plain["inside"] < strong["inside"], "guidance sharpens"
    assert strong["spread"] < 0.75 * plain["spread"], "guidance costs diversity"
    assert plain["outside"] < 0.03 < strong["outside"], "too much guidance leaves the data"


def test_the_guidance_demo_answers_the_keyboard(page: Page, address: str) -> None:
    demo = _guidance(page, address)
    before = page.run(PIXELS.format("guidance"))
    page.run(f"{_control(page, 'guidance', 'Scale')}.focus()")
    page.press("End")
    assert page.run(PIXELS.format("guidance")) != before
    assert "scale 8" in page.run(f"{demo}.querySelector('canvas').getAttribute('aria-label')")
    for label, value in (("Class", "2"), ("Away", "3"), ("Trails", "on")):
        before = page.run(PIXELS.format("guidance"))
        if label == "Trails":
            page.run(f"{_control(page, 'guidance', label)}.click()")
        _choose(page, "guidance", label, value)
        assert page.run(PIXELS.format("guidance")) != before, label
    assert [error for error in page.errors if "THEBE" not in error] == []

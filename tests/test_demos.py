"""The live demos on their pages: each shows what minidiff computes, and answers to mouse and keyboard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from browser import Page
from demo_numbers import DATA, IN_JS, SCRIPTS, close, demo_data, mixture_of

from minidiff.common import Condition
from minidiff.guidance import Guided
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import make_schedule, time_grid
from minidiff.toy import ExactDenoiser, Mixture

pytestmark = pytest.mark.browser


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
    eps = page.run("{ const z = diffusion.normals(7); Array.from({length: 64 * 64 * 3}, z) }")
    fox = torch.from_numpy(demo_data.fox()).double() / 127.5 - 1
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
    assert close(page.run(f"{state}.end[0]"), torch.tensor(np.average(rings["means"], axis=0)), 0.02)
    assert page.run(f"{demo}.querySelector('[role=status]').textContent").startswith("After 1 step, 0%")


def test_a_point_is_dropped_by_mouse_and_by_keyboard_and_runs_to_the_data(page: Page, address: str) -> None:
    demo = _open(page, address, "03_reverse", "flow")
    mine = f"{demo}.demo.state().mine"
    page.drag("#demo-flow canvas", (0.75, 0.5))
    assert close(page.run(f"{mine}[0].from"), torch.tensor([1.0, 0.0]), 0.02)
    page.run(f"{demo}.querySelector('canvas').focus()")
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Enter"):
        page.press(key)
    assert close(page.run(f"{mine}[1].from"), torch.tensor([-0.1, 0.2]))
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
    mixture, schedule = mixture_of("arms"), make_schedule("cosine")
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
        assert close(state["end"], end, 1e-4)
        assert state["reach"] >= max(2.4, float(end.abs().max())), "a sample lies outside the picture"
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

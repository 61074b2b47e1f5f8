"""Reading on paper, by keyboard, and without motion: what every page of the book keeps for each reader."""

from __future__ import annotations

import pytest
from browser import Browser, Page
from test_book import PAGES
from test_demos import PIXELS
from test_demos import _open as open_demo

pytestmark = pytest.mark.browser

PAPER = 688  # CSS pixels between the margins of an A4 sheet: 182 of its 210 mm
LIVE = ".mdf :is(button, input), .quiz-option summary, .demo :is(button, input, select, canvas[tabindex]), " + (
    "minidiff-playground :is(button, input, select, a)"
)
SHOWN = "e => e.getClientRects().length && getComputedStyle(e).visibility === 'visible'"
LIGHT = """const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};"""
CUT_OFF = f"""[...document.querySelectorAll('.bd-article *:not(mjx-container *, script)')].filter(e => {{
    const look = getComputedStyle(e), inside = e.closest('mjx-assistive-mml, .visually-hidden, .sr-only');
    const beyond = e.getBoundingClientRect().right > {PAPER + 1};
    const scrolls = !e.matches('span.math') && look.overflowX !== 'visible';
    const hides = scrolls && e.clientWidth && e.scrollWidth > e.clientWidth + 1;
    return !inside && ({SHOWN})(e) && (beyond || hides);
}}).map(e => `${{e.scrollWidth}} px: ${{e.outerHTML.slice(0, 100)}}`)"""
PALE = f"""(() => {{
    {LIGHT}
    const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && ({SHOWN})(e);
    return [...document.querySelectorAll('.bd-article *:not(mjx-assistive-mml *, script, style, option)')]
        .filter(e => speaks(e) && 1.05 / (light(getComputedStyle(e).color) + 0.05) < 4.5)
        .map(e => `${{getComputedStyle(e).color}}: ${{e.outerHTML.slice(0, 100)}}`);
}})()"""
DARK = f"""(() => {{
    {LIGHT}
    return [...document.querySelectorAll('html, body, body *')].filter(e => {{
        const color = getComputedStyle(e).backgroundColor;
        return ({SHOWN})(e) && !/, 0\\)$|transparent/.test(color) && light(color) < 0.5;
    }}).map(e => e.outerHTML.slice(0, 100));
}})()"""
FOLDED = ".quiz-option > p, .admonition.dropdown > :not(.admonition-title), details.sd-dropdown > .sd-card-body"
CONTROLS = """.mdf-controls, .demo :is(button, .demo-handle, .demo-hint), .toggle-button,
    minidiff-playground :is(form, button, input), .bd-sidebar-primary, .bd-sidebar-secondary,
    .bd-header-article, .prev-next-footer, .headerlink"""


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_nothing_is_cut_off_or_pale_or_folded(name: str, page: Page, address: str) -> None:
    """Even for a reader whose screen is dark: paper is white, and has nothing to click."""
    page.resize(PAPER, 1000)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    page.send("Emulation.setEmulatedMedia", media="print", features=[dark])
    page.open(f"{address}/{name}.html")
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.run("new Promise(done => setTimeout(() => done(1), 300))")
    assert page.run("document.documentElement.dataset.theme") == "dark"
    assert page.run(CUT_OFF) == []
    assert page.run(PALE) == []
    assert page.run(DARK) == []
    folded = f"[...document.querySelectorAll({FOLDED!r})].filter(e => !({SHOWN})(e) || !e.offsetHeight)"
    assert page.run(f"{folded}.map(e => e.outerHTML.slice(0, 100))") == []
    controls = f"[...document.querySelectorAll(`{CONTROLS}`)].filter({SHOWN}).map(e => e.outerHTML.slice(0, 100))"
    assert page.run(controls) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_live_control_shows_that_it_has_the_focus(scheme: str, browser: Browser, address: str) -> None:
    """An outline of two pixels with a contrast of at least 3 (WCAG 2.2, success criteria 2.4.7 and 1.4.11)."""
    page = browser.page(dark=scheme == "dark")
    seen = 0
    for name in PAGES:
        page.open(f"{address}/{name}.html")
        page.run("dispatchEvent(new Event('beforeprint'))")  # which wakes the demos
        faint = page.run(f"""(() => {{
            {LIGHT}
            const behind = light(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll('{LIVE}')].filter({SHOWN}).map(e => {{
                e.focus({{ focusVisible: true, preventScroll: true }});
                const {{ outlineStyle, outlineWidth, outlineColor }} = getComputedStyle(e);
                const pair = [light(outlineColor), behind];
                const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
                const drawn = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
                const fine = document.activeElement === e && drawn && contrast >= 3;
                return fine ? '' : `${{outlineColor}} ${{e.outerHTML.slice(0, 90)}}`;
            }});
        }})()""")
        assert [words for words in faint if words] == [], name
        seen += len(faint)
    page.close()
    assert seen > 50


def test_the_tab_key_walks_through_the_playground_in_reading_order(page: Page, address: str) -> None:
    page.open(f"{address}/book/playground.html")
    page.run("document.querySelector('minidiff-playground [name=prompt]').focus()")
    walked = []
    for _ in range(6):
        page.press("Tab")
        walked.append(page.run("document.activeElement.name || document.activeElement.textContent"))
        assert page.run("document.activeElement.matches(':focus-visible')")
    assert walked == ["Draw", "style", "steps", "guidance", "seed", "negative"]


STILL = "new Promise(done => setTimeout(() => done(1), 500))"


def _wants_no_motion(page: Page) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])


@pytest.mark.parametrize(
    ("chapter", "name"), [("02_forward", "schedules"), ("03_reverse", "flow"), ("04_text", "guidance")]
)
def test_a_demo_does_not_move_by_itself(chapter: str, name: str, page: Page, address: str) -> None:
    open_demo(page, address, chapter, name)
    before = page.run(PIXELS.format(name))
    page.run(STILL)
    assert page.run(PIXELS.format(name)) == before


def test_without_motion_play_shows_the_end_at_once(page: Page, address: str) -> None:
    _wants_no_motion(page)
    demo = open_demo(page, address, "03_reverse", "flow")
    page.run(f"[...{demo}.querySelectorAll('button')].find(b => b.textContent === 'Play').click()")
    ended = page.run(PIXELS.format("flow"))
    assert page.run(f"{demo}.demo.state().t") == 0
    page.run(STILL)
    assert page.run(PIXELS.format("flow")) == ended


def test_without_motion_the_playground_shows_a_picture_when_it_is_done(page: Page, address: str) -> None:
    frame = """(step, shade) => element.on_step({ step, steps: 3, seconds: 0.1, side: 1,
        attention: new Float32Array(2), x: new Float32Array(12).fill(shade),
        x0: new Float32Array(12).fill(shade) })"""
    look = f"""(() => {{
        const element = document.querySelector('minidiff-playground'), frame = {frame};
        element.asked = {{ prompt: 'a red heart' }};
        return [-1, 0, 1].map((shade, i) => {{ frame(i + 1, shade); return element.parts.picture.toDataURL(); }});
    }})()"""
    page.open(f"{address}/book/playground.html")
    assert len(set(page.run(look))) == 3
    _wants_no_motion(page)
    page.open(f"{address}/book/playground.html")
    first, second, third = page.run(look)
    assert first == second != third
    page.run("scrollTo(0, document.body.scrollHeight), document.querySelector('.pg-gallery a').click()")
    here = page.run("scrollY")
    page.run(STILL)
    assert page.run("scrollY") == here

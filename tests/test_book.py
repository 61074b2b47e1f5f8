"""Every page of the built book, in a real browser: it is whole, it works, and it talks to nobody else."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import yaml
from browser import BUILT, ROOT, Browser, Page


def _files(entry: dict) -> list[str]:
    inner = [
        name for key in ("parts", "chapters", "sections") for part in entry.get(key, []) for name in _files(part)
    ]
    return [entry[key] for key in ("root", "file") if key in entry] + inner


PAGES = _files(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")))
NOTEBOOKS = [name for name in PAGES if name.startswith("notebooks/")]

WORDS = """.mdf :is(output, i, button, figcaption), .quiz-option :is(summary, p),
    minidiff-playground :is(label, button, p, small),
    .demo :is(output, span, select, button, p, figcaption, .demo-title, .demo-strip div)"""
CONTRASTS = (
    f"dispatchEvent(new Event('beforeprint')); [...document.querySelectorAll(`{WORDS}`)]"
    """.map(words => {
    const light = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const clear = element => /, 0\\)$|transparent/.test(getComputedStyle(element).backgroundColor);
    let behind = words;
    while (clear(behind)) behind = behind.parentElement;
    const pair = [getComputedStyle(words).color, getComputedStyle(behind).backgroundColor].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
})"""
)

SQUEEZED = """[...document.querySelectorAll('.bd-article img')].filter(i => i.naturalWidth && i.offsetWidth
    && Math.abs(i.offsetWidth * i.naturalHeight / i.offsetHeight / i.naturalWidth - 1) > 0.02).map(i => i.src)"""

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("home", ["server", "file"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_asks_nobody_else(name: str, home: str, page: Page, address: str) -> None:
    base = address if home == "server" else BUILT.as_uri()
    page.open(f"{base}/{name}.html")
    assert page.run("document.querySelector('h1').textContent.trim().length") > 2
    elsewhere = [
        url for url in page.requests if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(base)
    ]
    assert elsewhere == []
    assert page.errors == []
    assert page.run("document.querySelectorAll('mjx-merror').length") == 0
    formulas = page.run("document.querySelectorAll('.math').length")
    assert page.run("document.querySelectorAll('mjx-container').length") >= formulas
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth && i.offsetParent).map(i => i.src)"
    assert page.run(broken) == []
    assert page.run(SQUEEZED) == []
    for lacking in (
        "img:not([alt])",
        "img:not([width], [src$=svg], .logo)",
        "summary:has(> .toctree-toggle):not([aria-label])",
    ):
        assert page.run(f"[...document.querySelectorAll('{lacking}')].map(e => e.outerHTML.slice(0, 200))") == []
    assert page.run("document.querySelectorAll('mjx-container[tabindex=\"0\"]').length") == 0
    controls = "[...document.querySelectorAll('.bd-article :is(input, select)')]"
    assert page.run(f"{controls}.filter(e => !e.labels.length && !e.ariaLabel).map(e => e.outerHTML)") == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_visit_has_its_colors_before_the_themes_script_runs(dark: bool, browser: Browser, address: str) -> None:
    page = browser.page(dark=dark)
    page.send("Network.setBlockedURLs", urls=["*theme.js*"])
    page.open(f"{address}/index.html")
    page.run("localStorage.setItem('mode', 'auto'), localStorage.setItem('theme', 'neither'), 0")  # an earlier visit
    page.open(f"{address}/book/intro.html")
    assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    fonts = "[...document.querySelectorAll('link[rel=preload][as=font]')].map(link => link.href)"
    assert len(page.run(fonts)) == 3 and set(page.run(fonts)) <= set(page.requests)
    page.close()


def test_a_fold_is_never_seen_open_while_its_script_is_on_the_way(browser: Browser, address: str) -> None:
    page = browser.page()
    page.send("Network.setBlockedURLs", urls=["*togglebutton*"])
    page.open(f"{address}/notebooks/04_text.html")
    folded = "[...document.querySelectorAll('.admonition.dropdown > :not(.admonition-title)')]"
    assert page.run(f"{folded}.length") > 10 and page.run(f"{folded}.filter(e => e.offsetHeight).length") == 0
    page.close()


def test_without_scripts_the_book_has_its_colors_and_its_solutions(browser: Browser, address: str) -> None:
    page = browser.page()
    page.open("about:blank")
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    page.loaded = False
    page.send("Page.navigate", url=f"{address}/notebooks/04_text.html")
    while not page.loaded:
        page._receive()
    page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 253, 250)"
    assert page.run("document.querySelector('.admonition.dropdown > p:not(.admonition-title)').offsetHeight") > 0
    assert page.run("getComputedStyle(document.querySelector('.mdf-controls')).display") == "none"
    page.close()


def test_the_page_comes_first_and_what_is_looked_at_later_comes_later() -> None:
    for name in PAGES:
        text = (BUILT / f"{name}.html").read_text(encoding="utf-8")
        assert "data:image/webp" not in text and "searchindex" not in text, name
        assert all('loading="lazy"' in tag for tag in re.findall(r"<img [^>]*_images/(?!hero)[^>]*>", text)), name
    assert "searchindex" in (BUILT / "search.html").read_text(encoding="utf-8")
    frames = re.findall(r"url\(\.\./(_images/\w+\.webp)\)", (BUILT / "notebooks/02_forward.html").read_text())
    assert frames and all((BUILT / path).stat().st_size > 1000 for path in frames)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(name: str, page: Page, address: str) -> None:
    page.resize(320, 568)
    page.open(f"{address}/{name}.html")
    assert page.run("document.documentElement.scrollWidth") <= 320
    page.resize(390, 844)
    assert page.run(SQUEEZED) == []
    outside = """[...document.querySelectorAll('.bd-article *')].filter(e => {
        const box = e.getBoundingClientRect();
        if (!box.width || box.right <= 391) return false;
        for (let p = e; p && !p.matches('.bd-article'); p = p.parentElement)
            if (getComputedStyle(p).overflowX !== 'visible') return false;
        return !e.closest('mjx-assistive-mml');
    }).map(e => e.outerHTML.slice(0, 120))"""
    assert page.run(outside) == []


def test_a_figure_wider_than_a_phone_says_that_there_is_more(page: Page, address: str) -> None:
    page.resize(390, 844)
    page.open(f"{address}/notebooks/01_basics.html")
    shade = "getComputedStyle(document.querySelector('#{}'), '::after').opacity"
    assert page.run(shade.format("fig-learned")) == "1" and page.run(shade.format("fig-data")) == "0"
    assert page.run("parseFloat(getComputedStyle(document.querySelector('#fig-learned'), '::after').height)") > 100
    page.run("document.querySelector('#fig-learned').scrollLeft = 1000")
    page.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(1), 50)))")
    assert page.run(shade.format("fig-learned")) == "0"


def test_the_address_of_the_book_shows_its_picture_and_leads_to_it() -> None:
    index = (BUILT / "index.html").read_text(encoding="utf-8")
    assert 'property="og:image"' in index and "<title>Diffusion Models Demystified</title>" in index
    assert 'url=book/intro.html"' in index and '<a href="book/intro.html">Diffusion Models Demystified</a>' in index
    assert "search.html" in (BUILT / "404.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_boxes_and_folds_of_a_notebook_are_those_of_its_page(name: str, page: Page, address: str) -> None:
    text = (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")
    summaries = re.findall(r"<summary>(.*?)</summary>", text)
    page.open(f"{address}/{name}.html")
    titles = page.run("[...document.querySelectorAll('.dropdown > .admonition-title')].map(e => e.innerText)")
    folds = [title for title in summaries if title != "Answers"]
    assert len(titles) == len(folds) and all(a.startswith(b) for a, b in zip(titles, folds, strict=True))
    boxes = "document.querySelectorAll('.bd-article .admonition:not(.dropdown, .hide)').length"
    assert page.run(boxes) == len(re.findall(r'"> \*\*[^*]*\*\*\\n",\s*">\\n"', text)) > 0
    assert page.run("document.querySelectorAll('.quiz').length") == summaries.count("Answers")
    assert page.run("document.querySelectorAll('.bd-article blockquote').length") == 0
    strips = "document.querySelectorAll('.opener:has(img[alt]) + .admonition').length"  # before a chapter's first box
    assert page.run(strips) == ("recipes" not in name)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_equations_have_the_numbers_that_the_notebook_gives_them(name: str, page: Page, address: str) -> None:
    text = (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")
    page.open(f"{address}/{name}.html")
    counted = page.run("[...document.querySelectorAll('.eqno')].map(e => e.innerText.replace('#', ''))")
    assert counted == re.findall(r'\$\$ (\(\d\.\d+\))(?:\\n)?"', text)
    links = "[...document.querySelectorAll('.bd-article a.internal[href*=\"#equation-\"]')].map(e => e.textContent)"
    assert page.run(links) == re.findall(r"quation (\(\d\.\d+\))", text)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_each_id_once_and_shows_its_formulas_without_mathjax(name: str, page: Page, address: str) -> None:
    page.open(f"{address}/{name}.html")
    ids = page.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)), {name for name in ids if ids.count(name) > 1}
    assert page.run("window.MathJax === undefined") and not any("mathjax_path" in asked for asked in page.requests)
    formulas = page.run("document.querySelectorAll('.math').length")
    assert formulas == page.run(
        "document.querySelectorAll('.math > mjx-container > mjx-assistive-mml > math').length"
    )
    assert bool(formulas) == any("formulas.css" in asked for asked in page.requests)


@pytest.mark.parametrize("name", PAGES)
def test_every_slider_moves_its_picture(name: str, page: Page, address: str) -> None:
    page.open(f"{address}/{name}.html")
    figures = page.run("document.querySelectorAll('.mdf').length")
    for figure in range(figures):
        root = f"document.querySelectorAll('.mdf')[{figure}]"
        shown = f"{root}.querySelector('.mdf-view').style.backgroundPosition"
        for slider in range(page.run(f"{root}.querySelectorAll('input').length")):
            handle = f"{root}.querySelectorAll('input')[{slider}]"
            words = f"{root}.querySelectorAll('output')[{slider}].textContent"
            page.run(f"{handle}.id = 'here', 0")
            page.drag("#here", (0.01, 0.5))
            first, said = page.run(shown), page.run(words)
            length = page.run(f"{handle}.offsetWidth")
            page.drag("#here", (0.01, 0.5), (0.99, 0.5))
            assert page.run(shown) != first, "the mouse changes nothing"
            assert page.run(words) != said
            assert page.run(f"{handle}.offsetWidth") == length, "the words beside a slider change its length"
            page.run(f"{handle}.id = '', 0")
            page.run(f"{handle}.focus()")
            page.press("Home")
            assert page.run(shown) == first, "the keyboard does not reach the slider"
            page.press("ArrowRight")
            assert page.run(shown) != first
        button = f"{root}.querySelector('button')"
        before = page.run(shown)
        page.run(f"{button}.click()")
        assert page.run(shown) != before, "the play button changes nothing"
        page.run(f"{button}.click()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_of_sliders_quizzes_and_demos_can_be_read(scheme: str, browser: Browser, address: str) -> None:
    """A contrast of at least 4.5 between each word and what is behind it (WCAG 2.2, success criterion 1.4.3)."""
    page = browser.page(dark=scheme == "dark")
    seen = 0
    for name in PAGES:
        page.open(f"{address}/{name}.html")
        contrasts = page.run(CONTRASTS)  # and print wakes the demos
        assert all(contrast >= 4.5 for contrast in contrasts), f"{name}: {min(contrasts):.1f}"
        seen += len(contrasts)
    page.close()
    assert seen > 0


def test_a_page_opened_as_a_file_shows_its_sliders(page: Page, address: str) -> None:
    seen = 0
    for name in PAGES:
        page.open((BUILT / f"{name}.html").as_uri())
        ready = page.run("[...document.querySelectorAll('.mdf')].map(figure => figure.dataset.ready)")
        assert set(ready) <= {"1"}, name
        seen += len(ready)
    assert seen > 0


def test_a_reader_who_wants_no_motion_gets_one_frame_a_click(page: Page, address: str) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    for name in PAGES:
        page.open(f"{address}/{name}.html")
        if page.run("document.querySelectorAll('.mdf').length"):
            break
    page.run("document.querySelector('.mdf button').click()")
    here = page.run("document.querySelector('.mdf input').value")
    page.run("new Promise(done => setTimeout(() => done(1), 600))")
    assert page.run("document.querySelector('.mdf input').value") == here
    assert page.run("document.querySelector('.mdf button').getAttribute('aria-label')") == "play"


def test_the_reference_lists_what_it_says_of_each_argument(page: Page, address: str) -> None:
    page.open(f"{address}/book/api/mathematics.html")
    about = "document.getElementById('minidiff.guidance.Guided').parentElement.querySelector(':scope > dd')"
    listed = page.run(f"[...{about}.querySelectorAll(':scope > ul > li')].map(item => item.textContent)")
    assert [item.split(":")[0] for item in listed] == ["scale", "null", "rescale", "interval", "weak"]
    assert not any("Raises" in item for item in listed)
    raised = page.run(f"[...{about}.querySelectorAll(':scope > p')].pop().textContent")
    assert raised.startswith("Raises ValueError")


def test_the_book_can_be_searched(page: Page, address: str) -> None:
    page.open(f"{address}/search.html?q=cosine")
    until = """new Promise(done => { let tries = 0; (function look() {
        const hits = document.querySelectorAll('.search li').length;
        if (hits || tries++ > 100) done(hits); else setTimeout(look, 50);
    })(); })"""
    assert page.run(until) > 0


@pytest.mark.parametrize(("width", "name"), [(390, "primary"), (390, "secondary"), (1440, "primary")])
def test_the_menu_and_the_contents_open(width: int, name: str, page: Page, address: str) -> None:
    page.resize(width, 844)
    page.open(f"{address}/notebooks/02_forward.html")
    seen = f"""(a => {{ const box = a.getBoundingClientRect();
        return a.checkVisibility({{visibilityProperty: true}}) && box.width && box.left >= 0 && box.left < innerWidth;
    }})(document.querySelector('.bd-sidebar-{name} a'))"""
    before = page.run(seen)
    page.drag(f".bd-header-article .{name}-toggle", (0.5, 0.5))
    page.run("new Promise(done => setTimeout(() => done(1), 600))")
    assert (before, page.run(seen)) == ((False, True) if width < 1200 else (True, False))

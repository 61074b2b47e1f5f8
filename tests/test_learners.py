"""What helps to learn: a map from which every page is near, and questions that answer in the page."""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import urljoin

import pytest
from address import project
from browser import BUILT, ROOT, Page
from test_book import NOTEBOOKS, PAGES

CHAPTERS = [name for name in PAGES if re.match(r"notebooks/\d", name)]  # not the recipes
ASKING = [name for name in CHAPTERS if "<summary>Answers<" in (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")]
OPTIONS = "document.querySelectorAll('.quiz-option')"

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", ASKING)
def test_a_chapter_asks_questions_with_one_right_answer_and_explains_each_option(
    name: str, page: Page, address: str
) -> None:
    page.open(f"{address}/{name}.html")
    asked = page.run("""[...document.querySelectorAll('.quiz')].map(quiz => ({
        question: quiz.querySelector('p').textContent,
        right: quiz.querySelectorAll('[data-right=yes]').length,
        words: [...quiz.querySelectorAll('.quiz-option')].map(option => option.querySelector('p').textContent),
    }))""")
    assert 3 <= len(asked) <= 5
    for quiz in asked:
        assert quiz["right"] == 1, quiz["question"]
        assert len(quiz["words"]) >= 3
        assert all(len(words) > 30 for words in quiz["words"]), "an option without an explanation"


def test_an_option_answers_the_mouse_and_the_keyboard(page: Page, address: str) -> None:
    page.open(f"{address}/{ASKING[-1]}.html")
    shown = f"[...{OPTIONS}].slice(0, 2).map(o => o.querySelector('p').checkVisibility())"
    assert page.run(shown) == [False, False]
    page.drag(".quiz-option summary", (0.5, 0.5))
    assert page.run(shown) == [True, False]
    page.run(f"{OPTIONS}[1].querySelector('summary').focus()")
    page.press("Enter")
    assert page.run(shown) == [True, True]
    marks = f"[...{OPTIONS}].slice(0, 2).map(o => getComputedStyle(o.querySelector('summary'), '::before').content)"
    assert page.run(marks) != [page.run(marks)[0]] * 2, "right and wrong have the same mark"


def _links(page: str) -> set[str]:
    """The pages of the book that a built page links to."""
    text = (BUILT / page).read_text(encoding="utf-8")
    found = {urljoin(f"/{page}", link.partition("#")[0]) for link in re.findall(r'<a[^>]* href="([^"]+)"', text)}
    return {link.removeprefix("/") for link in found if (BUILT / link.removeprefix("/")).is_file()}


def test_every_page_is_within_two_clicks_of_the_first(address: str) -> None:
    first = {link for link in _links("book/intro.html") if link.endswith(".html")}
    second = set().union(*(_links(link) for link in first))
    assert {f"{name}.html" for name in PAGES} <= {"book/intro.html"} | first | second
    assert 'url=book/intro.html"' in (BUILT / "index.html").read_text(encoding="utf-8")


def test_a_link_to_a_place_on_a_page_finds_it(address: str) -> None:
    pages = {path.relative_to(BUILT).as_posix(): path.read_text(encoding="utf-8") for path in BUILT.rglob("*.html")}
    for page, text in pages.items():
        for link in re.findall(r'<a[^>]* href="([^"]+#[^"]+)"', text):
            target, _, place = urljoin(f"/{page}", link).removeprefix("/").partition("#")
            assert target not in pages or f'id="{place}"' in pages[target], (page, link)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_rocket_of_a_chapter_or_recipe_opens_it_in_colab(name: str, address: str) -> None:
    repository = project()[0].removeprefix("https://github.com/")
    page = (BUILT / f"{name}.html").read_text(encoding="utf-8")
    assert f'href="https://colab.research.google.com/github/{repository}/blob/main/{name}.ipynb"' in page


def test_the_map_has_every_chapter_and_its_times(page: Page, address: str) -> None:
    page.open(f"{address}/book/intro.html")
    entries = page.run("""[...document.querySelectorAll('.chapter-map li')].map(entry => ({
        page: entry.querySelector('a').getAttribute('href'), words: entry.textContent }))""")
    assert [entry["page"] for entry in entries] == [f"../{name}.html" for name in CHAPTERS]
    for entry in entries:
        read = re.search(r"(\d+) minutes to read", entry["words"])
        assert read and 5 <= int(read[1]) <= 60


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_listened_to(name: str, address: str) -> None:
    """It says its language, its headings leave no level out, and each picture has words."""
    text = (BUILT / f"{name}.html").read_text(encoding="utf-8")
    article = text[text.index("<article") : text.index("</article>")]
    assert re.search(r'<html[^>]* lang="en"', text)
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", article)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(inner <= outer + 1 for outer, inner in pairwise(levels))
    for drawn in re.findall(r'<(?:canvas|[^>]* role="img")[^>]*>', article):
        assert re.search(r'aria-label="[^"]{10,}"|aria-hidden="true"', drawn), drawn[:100]
    assert not re.search(r'<img(?![^>]* alt="([^"]{3,})?")[^>]*>', article)  # alt="": beside words that say it

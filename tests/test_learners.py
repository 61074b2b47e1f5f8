"""What helps to learn: questions that answer in the page."""

from __future__ import annotations

import pytest
from browser import ROOT, Page
from test_book import PAGES

CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]
ASKING = [name for name in CHAPTERS if ":::{quiz}" in (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")]
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

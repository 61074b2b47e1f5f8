"""What the tests of the pages share: the built book, served, and a browser to look at it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest
from browser import BUILT, ROOT, Browser, Page, find_browser

sys.path.insert(0, str(ROOT / "book" / "tools"))

from serve import server


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the built book is served during these tests."""
    if not (BUILT / "index.html").exists():
        _missing("the book is not built: run `make html` first")
    book = server(str(BUILT))
    threading.Thread(target=book.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{book.server_port}"
    book.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        _missing("no Chromium or Chrome on this machine: install one to test the pages")
    else:
        with Browser(path) as running:
            yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.page()
    yield opened
    opened.close()


def _missing(reason: str) -> None:
    """On a person's machine a skipped test that says so; in CI, where it must not happen, a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

"""Photograph every page of the built book, on a desktop and on a phone, light and dark, for people to look at.

`python book/tools/screenshots.py FOLDER [page ...]`: pages as in _toc.yml, say notebooks/02_forward; all by default.
"""

import pathlib
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "book" / "tools")]

from browser import Browser, find_browser  # noqa: E402
from serve import server  # noqa: E402

SIZES = {"desktop": (1400, 900), "phone": (390, 844)}


def main(folder: str, *names: str) -> None:
    """Write FOLDER/PAGE-SIZE-SCHEME.png for each page, size and color scheme."""
    built = ROOT / "_build" / "html"
    pages = [built / f"{name}.html" for name in names] or sorted(built.glob("*/**/*.html"))
    pages = [page for page in pages if "_static" not in page.parts]
    target, book, path = pathlib.Path(folder), server(str(built)), find_browser()
    if not pages or path is None:
        sys.exit("There is nothing to photograph: run `make html`, and have Chromium or Chrome installed.")
    target.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=book.serve_forever, daemon=True).start()
    with Browser(path) as browser:
        for scheme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                page = browser.page(width, height, dark=scheme == "dark")
                for file in pages:
                    name = file.relative_to(built).with_suffix("")
                    page.open(f"http://localhost:{book.server_port}/{name}.html")
                    page.resize(width, min(8000, page.run("document.documentElement.scrollHeight")))
                    shot = target / f"{str(name).replace('/', '-')}-{size}-{scheme}.png"
                    shot.write_bytes(page.screenshot(whole=False))
                    page.resize(width, height)
                page.close()
    print(f"{len(list(target.glob('*.png')))} pictures in {target}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["screenshots"]))

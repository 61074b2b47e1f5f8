"""Draw the playground's gallery in the page itself, and say how long that took. Run it after `make html`.

Every line of the directive in book/playground.md becomes a PNG in book/_static/playground/gallery, exactly as a
visitor with these settings gets it: the same files and programs, in headless Chromium. The times are this machine's.
"""

import base64
import json
import pathlib
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "book" / "tools")]

from browser import Browser, find_browser  # noqa: E402
from playground_files import PLAYGROUND, checkpoint, page_examples  # noqa: E402
from serve import server  # noqa: E402

DRAW = """new Promise((done, failed) => {
    const element = document.querySelector("minidiff-playground");
    element.addEventListener("drawn", ({ detail }) => done(JSON.stringify(
        { ...detail, steps: element.frames.map(frame => frame.seconds), png: element.parts.picture.toDataURL() },
    )), { once: true });
    element.restore();
    element.act();
})"""


def main() -> None:
    """Replace the pictures of the gallery and print the times."""
    wanted = page_examples(ROOT / "book" / "playground.md")
    path, folder = find_browser(), PLAYGROUND / "gallery"
    if not wanted or path is None:
        sys.exit("There is nothing to draw: book/playground.md needs its directive, this machine Chromium or Chrome.")
    book = server(str(ROOT / "_build" / "html"))
    threading.Thread(target=book.serve_forever, daemon=True).start()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    (folder / "checkpoint.txt").write_text(checkpoint() + "\n")
    with Browser(path) as browser:
        page = browser.page()
        page.socket.settimeout(600)
        page.open(f"http://localhost:{book.server_port}/book/playground.html")
        for i, example in enumerate(wanted):
            page.run(f"history.replaceState(null, '', {json.dumps(example.link)})")
            drawn = json.loads(page.run(DRAW))
            example.file.write_bytes(base64.b64decode(drawn["png"].partition(",")[2]))
            first = "from the click, download and start included" if i == 0 else "in all"
            best = min(drawn["steps"])
            print(
                f"{example.prompt}: {drawn['seconds']:.1f} s {first}; the fastest step took {best:.2f} s", flush=True
            )


if __name__ == "__main__":
    main()

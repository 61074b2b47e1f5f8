"""Draw the playground's gallery in the page itself, and measure how long a picture takes. Run it after `make html`.

Every line of the directive in book/playground.md becomes a PNG in book/_static/playground/gallery, exactly as a
visitor with these settings gets it: the same files and programs, in headless Chromium. `playground_gallery.py times`
only measures, into gallery/times.json, which the page shows: on a machine that does nothing else, please.
"""

import base64
import json
import os
import pathlib
import statistics
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "book" / "tools")]

from browser import Browser, find_browser  # noqa: E402
from playground_files import PLAYGROUND, TIMES, checkpoint, fingerprint, page_examples  # noqa: E402
from serve import server  # noqa: E402

PAGE = ROOT / "book" / "playground.md"
DRAW = """new Promise((done, failed) => {
    const element = document.querySelector("minidiff-playground");
    element.addEventListener("drawn", ({ detail }) => done(JSON.stringify(
        { ...detail, steps: element.frames.map(frame => frame.seconds), png: element.parts.picture.toDataURL() },
    )), { once: true });
    element.restore();
    element.act();
})"""


def measure(path: str, page: str, runs: int = 3) -> None:
    """Write what a visitor waits for: medians over browsers that have seen nothing yet."""
    first, step, steps = [], [], 0
    for _ in range(runs):
        with Browser(path) as browser:
            visit = browser.page()
            visit.socket.settimeout(600)
            visit.open(page)
            drawn = json.loads(visit.run(DRAW))
            first.append(drawn["seconds"])
            step.append(statistics.median(drawn["steps"]))
            steps = len(drawn["steps"])
    took = {"first": statistics.median(first), "step": statistics.median(step), "steps": steps}
    about = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "files": fingerprint("emoji-64")}
    TIMES.write_text(json.dumps(took | about, indent=1) + "\n", encoding="utf-8")
    print(f"{took['first']:.2f} s to the first picture, {took['step']:.3f} s a step, load {about['load']}: {TIMES}")


def draw(path: str, address: str) -> None:
    """Replace the pictures of the gallery."""
    folder = PLAYGROUND / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    (folder / "checkpoint.txt").write_text(checkpoint() + "\n")
    with Browser(path) as browser:
        page = browser.page()
        page.socket.settimeout(600)
        page.open(address)
        for example in page_examples(PAGE):
            page.run(f"history.replaceState(null, '', {json.dumps(example.link)})")
            drawn = json.loads(page.run(DRAW))
            example.file.write_bytes(base64.b64decode(drawn["png"].partition(",")[2]))
            print(f"{example.prompt}: {drawn['seconds']:.1f} s", flush=True)


def main(task: str = "") -> None:
    """Draw and measure, or only measure."""
    path = find_browser()
    if not page_examples(PAGE) or path is None:
        sys.exit("There is nothing to draw: book/playground.md needs its directive, this machine Chromium or Chrome.")
    book = server(str(ROOT / "_build" / "html"))
    threading.Thread(target=book.serve_forever, daemon=True).start()
    address = f"http://localhost:{book.server_port}/book/playground.html"
    if task != "times":
        draw(path, address)
    measure(path, address)


if __name__ == "__main__":
    main(*sys.argv[1:])

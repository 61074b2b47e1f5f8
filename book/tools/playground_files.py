"""What the playground consists of: the files that its first click loads, and the pictures of its gallery."""

import gzip
import hashlib
import json
import pathlib
import re
import urllib.parse
from typing import NamedTuple

STATIC = pathlib.Path(__file__).resolve().parents[1] / "_static"
PLAYGROUND = STATIC / "playground"
MODEL = ["manifest.json", "tokenizer.json", "text.onnx", "unet.onnx"]
TIMES = PLAYGROUND / "gallery" / "times.json"  # written by playground_gallery.py, shown by {playground-times}
WASM = STATIC / "vendor" / "onnxruntime" / "ort-wasm-simd-threaded.wasm"


class Example(NamedTuple):
    """A picture of the gallery: what it was drawn from, and where it lies."""

    prompt: str
    style: str
    seed: str

    @property
    def link(self) -> str:
        """The settings as the fragment of an address; element.js reads it."""
        return "#" + urllib.parse.urlencode(self._asdict(), quote_via=urllib.parse.quote)

    @property
    def file(self) -> pathlib.Path:
        """Its picture, which playground_gallery.py draws."""
        return PLAYGROUND / "gallery" / (re.sub(r"\W+", "-", " ".join(self).lower()) + ".png")


def examples(lines: list[str]) -> list[Example]:
    """The gallery, from lines such as `a red heart | noto | 3`."""
    return [Example(*(part.strip() for part in line.split("|"))) for line in lines if line.strip()]


def page_examples(page: pathlib.Path) -> list[Example]:
    """The gallery that a page's directive asks for."""
    found = re.search(r"^```\{playground\} \S+\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return examples(found.group(1).splitlines()) if found else []


def checkpoint(model: str = "emoji-64") -> str:
    """The SHA-256 of the checkpoint that a model of the playground was exported from."""
    manifest = json.loads((PLAYGROUND / model / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["checkpoint"]["sha256"])


def downloads(model: str) -> list[pathlib.Path]:
    """Every file that the first click loads; those whose progress is shown come first."""
    programs = [path for name in ("onnxruntime", "tokenizers") for path in (STATIC / "vendor" / name).glob("*.mjs")]
    shown = [PLAYGROUND / model / name for name in MODEL] + [WASM]
    return shown + programs + [PLAYGROUND / name for name in ("worker.js", "sampler.js", "prompts.js")]


def fingerprint(model: str) -> str:
    """A hash of all of them: what was measured with other files is out of date."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(path.read_bytes()).digest() for path in downloads(model))
    ).hexdigest()


def zipped(path: pathlib.Path) -> int:
    """The size of a file in bytes after gzip, as servers compress."""
    return len(gzip.compress(path.read_bytes(), 6))

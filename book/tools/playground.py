"""`{playground} emoji-64`: the element that draws in the page, with what a visitor must know before the first click.

The argument is a folder of book/_static/playground, as `minidiff export onnx` wrote it. Each line of the content is a
picture of the gallery: `prompt | style | seed`. Sizes and styles are read from the files at every build, never typed.
"""

import html
import json
import pathlib
import string

from docutils import nodes
from playground_files import MODEL, PLAYGROUND, TIMES, Example, downloads, examples, zipped
from sphinx.util.docutils import SphinxDirective

TOOLS = pathlib.Path(__file__).resolve().parent


class Playground(SphinxDirective):
    """The element, filled in: styles of the model, bytes of the download, pictures to start from."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """One node of HTML."""
        model = self.arguments[0]
        files = downloads(model)
        missing = [path for path in files if not path.exists()]
        if missing:
            raise self.error(
                f"{missing[0].name} is missing: `make html` fetches programs, `make playground` exports."
            )
        styles = json.loads((PLAYGROUND / model / "manifest.json").read_text(encoding="utf-8"))["styles"]
        root = "../" * self.env.docname.count("/") + "_static/"
        text = string.Template((TOOLS / "playground.html").read_text(encoding="utf-8")).substitute(
            root=root,
            model=model,
            bytes=sum(path.stat().st_size for path in files[: len(MODEL) + 1]),
            megabytes=f"{sum(path.stat().st_size for path in files) / 1e6:.1f}",
            zipped=f"{sum(map(zipped, files)) / 1e6:.1f}",
            styles="".join(f'<option value="{style}">{style}</option>' for style in styles),
            gallery="".join(self.card(example, root) for example in examples(list(self.content))),
        )
        return [nodes.raw("", text, format="html")]

    def card(self, example: Example, root: str) -> str:
        """A link that fills in the settings, with the picture that they draw."""
        picture = f'<img src="{root}playground/gallery/{example.file.name}" alt="" width="96" height="96">'
        picture = picture if example.file.exists() else ""  # until playground_gallery.py has drawn it
        words = f"{html.escape(example.prompt)} <small>{html.escape(example.style)}</small>"
        return f'<a href="{html.escape(example.link)}">{picture}{words}</a>'


class Times(SphinxDirective):
    """How long it takes, as it was measured last; a test fails when that was with other files."""

    def run(self) -> list[nodes.Node]:
        """A list of two facts and a sentence."""
        took = json.loads(TIMES.read_text(encoding="utf-8"))
        facts = (
            ("From the click to the first picture, {steps} steps, on {cores} cores: ", "first"),
            ("One step, with guidance: ", "step"),
        )
        found = nodes.bullet_list()
        for words, name in facts:
            number = nodes.strong("", f"{took[name]:.2g} s")
            found += nodes.list_item(
                "", nodes.paragraph("", "", nodes.Text(words.format(**took)), number, nodes.Text("."))
            )
        return [found]


def setup(app) -> dict:
    """Register both directives."""
    app.add_directive("playground", Playground)
    app.add_directive("playground-times", Times)
    return {"parallel_read_safe": True}

"""Live demos: a paragraph that is nothing but a link to `...#demo-NAME` becomes the demo itself on the page.

In Colab, on GitHub and in a text editor it stays what it is, a link to the rendered page. The words of the link are
the demo's caption, and its place is filled by book/_static/demos/NAME.js once the reader scrolls there.
"""

import pathlib
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "_static" / "demos"
SHARED = ("diffusion", "data", "stage")  # what every demo needs, in this order
OPEN = (
    '<figure class="demo" id="demo-{name}" data-demo="{name}"><div class="demo-place"><noscript>'
    "This is a live demo; it needs JavaScript.</noscript></div><figcaption>"
)


class Demos(SphinxTransform):
    """Turns such paragraphs into figures."""

    default_priority = 400

    def apply(self) -> None:
        """Look at every paragraph of the page."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            link = paragraph.children[0] if len(paragraph) == 1 else None
            found = re.search(r"#demo-(\w+)$", link.get("refuri", "")) if isinstance(link, nodes.reference) else None
            if found is None:
                continue
            name = found.group(1)
            if not (SCRIPTS / f"{name}.js").exists():
                raise ValueError(f"{self.env.docname} asks for the demo {name!r}, but there is no {name}.js.")
            caption = nodes.inline("", "", *link.children)
            parts = [nodes.raw("", OPEN.format(name=name), format="html", demo=name), caption]
            paragraph.replace_self([*parts, nodes.raw("", "</figcaption></figure>", format="html")])


def add_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Load the scripts on the pages that show a demo, and on no other."""
    names = [node["demo"] for node in doctree.findall(nodes.raw) if "demo" in node] if doctree is not None else []
    for name in [*SHARED, *dict.fromkeys(names)] if names else []:
        app.add_js_file(f"demos/{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.add_transform(Demos)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

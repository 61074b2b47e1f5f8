"""A strip of pictures between a chapter's first words and its first box; book/tools/openers.py draws it.

On the page only: in the notebook such figures come from its own cells, further down.
"""

import json
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

FACTS = Path(__file__).parents[1] / "_static" / "openers" / "openers.json"


class Opening(SphinxTransform):
    """Puts the strip there, if this page has one."""

    default_priority = 211  # after `asides` has made the boxes

    def apply(self) -> None:
        """Look for the first box of the page."""
        name = self.env.docname.removeprefix("notebooks/")
        said = json.loads(FACTS.read_text(encoding="utf-8"))["chapters"].get(name)
        box = next(self.document.findall(nodes.admonition), None)
        if said is None or box is None:
            return
        self.env.note_dependency(str(FACTS))
        width, height = said["size"]  # known beforehand, so that nothing jumps
        image = f'<img src="../_static/openers/{name}.png" alt="{escape(said["alt"])}" width={width} height={height}>'
        strip = f'<div class="opener">{image}<p>{escape(said["caption"])}</p></div>'
        # Not a figure: it has no number, and is not what stands for the page where somebody shares it.
        box.parent.insert(box.parent.index(box), nodes.raw("", strip, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.add_transform(Opening)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Captions, numbers and links, written in Markdown that reads well without the book, and joined up on its pages.

- The paragraph in italics below the cell of a figure is the figure's caption; its name stands in the cell's metadata.
- The label of an equation is its number, `$$ ... $$ (2.1)`, and "equation (2.1)" leads to it. A test compares both
  with what the page counts.
- A link to a page at the book's address, which works everywhere, stays within the book that it stands in.
"""

import re
from dataclasses import dataclass, field

from asides import only
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

EQUATION = re.compile(r"(?<=quation )\((\d\.\d+)\)")
NO_TEXT = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


ROUND = BracketStyle(left="(", right=")")


@dataclass
class AsInNotebooks(AuthorYearReferenceStyle):
    """Papers are cited as in the notebooks: (Ho et al. 2020)."""

    bracket_parenthetical: BracketStyle = field(default_factory=lambda: ROUND)
    bracket_textual: BracketStyle = field(default_factory=lambda: ROUND)
    author_year_sep: str = " "


class Captions(SphinxTransform):
    """Moves captions from below the cells into the figures."""

    default_priority = 205

    def apply(self) -> None:
        """Look at every figure that a cell has drawn."""
        for figure in list(self.document.findall(nodes.figure)):
            if any(isinstance(part, nodes.caption) for part in figure):
                continue
            cell = figure
            while isinstance(cell.parent, nodes.container):
                cell = cell.parent
            below = cell.next_node(descend=False, siblings=True)
            words = None if below is None else only(below, nodes.emphasis)
            if words is None:
                raise ExtensionError(
                    f"{self.env.docname}: {figure['names']} wants a caption in italics below its cell."
                )
            figure += nodes.caption("", "", *words)
            cell.parent.remove(below)


class Equations(SphinxTransform):
    """Makes a link of each "equation (2.1)"."""

    default_priority = 205

    def apply(self) -> None:
        """Look at every piece of text."""
        for text in list(self.document.findall(nodes.Text)):
            parts = EQUATION.split(text.astext())
            if len(parts) == 1 or isinstance(text.parent, NO_TEXT):
                continue
            joined: list[nodes.Node] = [nodes.Text(part) for part in parts]
            for i in range(1, len(parts), 2):
                number = nodes.literal("", parts[i], classes=["xref", "eq"])
                to = {"refdomain": "math", "reftype": "eq", "reftarget": parts[i], "refdoc": self.env.docname}
                joined[i] = addnodes.pending_xref("", number, refwarn=True, **to)
            text.parent.replace(text, joined)


class Links(SphinxTransform):
    """Keeps links to the book's own address within the book."""

    default_priority = 450  # after the links that become demos

    def apply(self) -> None:
        """Look at every link."""
        site = self.config.ogp_site_url
        for link in self.document.findall(nodes.reference):
            address = link.get("refuri", "")
            if not address.startswith(site):
                continue
            page, _, place = address.removeprefix(site).partition("#")
            name = page.removesuffix(".html")
            if name not in self.env.found_docs:
                raise ExtensionError(f"{self.env.docname}: the book has no page {page}.")
            near = self.app.builder.get_relative_uri(self.env.docname, name)
            link["refuri"], link["internal"] = f"{near}#{place}" if place else near, True


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all three, and how papers are cited."""
    register_plugin("sphinxcontrib.bibtex.style.referencing", "as_in_notebooks", AsInNotebooks)
    for transform in (Captions, Equations, Links):
        app.add_transform(transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Formulas and the punctuation beside them stay on one line; so do the rows of a table that a cell has printed."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PHONE = 48  # characters of an output that fit beside one another on a phone


class Together(SphinxTransform):
    """Puts an inline formula, with an opening mark before it and closing marks after it, into one unbroken span."""

    default_priority = 800  # after quotation marks were made round

    def apply(self) -> None:
        """Look at every inline formula of the page."""
        for formula in list(self.document.findall(nodes.math)):
            place, parent = formula.parent.index(formula), formula.parent
            before = parent[place - 1].astext() if place and isinstance(parent[place - 1], nodes.Text) else ""
            after = "".join(node.astext() for node in parent[place + 1 : place + 2] if isinstance(node, nodes.Text))
            opening = re.search(r"[(\[“‘]*$", before).group()  # type: ignore[union-attr]
            closing = re.match(r"[.,;:!?)\]”’]*", after).group()  # type: ignore[union-attr]
            if not opening + closing:
                continue
            parts = (nodes.Text(opening), formula.deepcopy(), nodes.Text(closing))
            formula.replace_self(nodes.inline("", "", *parts, classes=["together"]))
            if opening:
                parent[place - 1] = nodes.Text(before.removesuffix(opening))
            if closing:
                parent[place + 1] = nodes.Text(after.removeprefix(closing))


class Columns(SphinxTransform):
    """Marks outputs that are tables, so that a phone scrolls them and does not break their rows."""

    default_priority = 800

    def apply(self) -> None:
        """Look at every printed output: two lines of equal length with numbers, longer than a phone is wide."""
        for block in self.document.findall(nodes.literal_block):
            if "stream" in block["classes"]:
                lines = [line for line in block.astext().split("\n") if re.search(r"\d", line)]
                wide = [len(line) for line in lines if len(line) > PHONE]
                if len(set(wide)) < len(wide):
                    block["classes"].append("columns")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.add_transform(Together)
    app.add_transform(Columns)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

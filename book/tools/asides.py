"""What stands beside the text, written in Markdown that Colab, an editor and GitHub show as well as the page does.

A block quotation that begins with a line in bold is a box with that title:

    > **Predict before you run**
    >
    > What will it be?

and what is folded away stays so everywhere:

    <details><summary>How sure is this?</summary>

    Text, formulas and code.

    </details>

On the page both become admonitions, the second a dropdown. A solution, which is a dropdown already, is folded inside
its directive only for those who read the notebook; on the page the inner fold goes.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

OPENING = re.compile(r"<details><summary>(.*)</summary>\s*")
CLOSING = re.compile(r"</details>\s*")


def box(title: list[nodes.Node], body: list[nodes.Node], *classes: str) -> nodes.admonition:
    """An admonition with a title of its own."""
    return nodes.admonition("", nodes.title("", "", *title), *body, classes=["admonition", *classes])


def is_raw(node: nodes.Node, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """What the pattern finds in a piece of HTML that stands by itself."""
    return pattern.fullmatch(node.astext()) if isinstance(node, nodes.raw) else None


class Boxes(SphinxTransform):
    """Turns quotations with a bold first line into admonitions."""

    default_priority = 210  # before references are resolved

    def apply(self) -> None:
        """Look at every quotation of the page."""
        for quote in list(self.document.findall(nodes.block_quote)):
            first = quote[0] if len(quote) else nodes.Text("")
            words = [node for node in first.children if node.astext()] if isinstance(first, nodes.paragraph) else []
            if len(words) == 1 and isinstance(words[0], nodes.strong):
                kind = "tip" if first.astext().startswith(("Predict", "In Colab")) else "plain"
                quote.replace_self(box(words[0].children, quote[1:], kind))


class Folds(SphinxTransform):
    """Turns what stands between the tags of <details> into a dropdown, or into plain text inside a solution."""

    default_priority = 210

    def apply(self) -> None:
        """Look at every opening tag of the page."""
        for start in [node for node in self.document.findall(nodes.raw) if is_raw(node, OPENING)]:
            parent, place = start.parent, start.parent.index(start)
            end = next((i for i in range(place, len(parent)) if is_raw(parent[i], CLOSING)), None)
            if end is None:
                raise ExtensionError(f"{self.env.docname}: {start.astext().strip()} is never closed.")
            title, body = is_raw(start, OPENING)[1], parent[place + 1 : end]  # type: ignore[index]
            solved = "solution" in parent.get("classes", []) or title == "Solution"
            parent[place : end + 1] = body if solved else [box([nodes.Text(title)], body, "dropdown", "fold")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.add_transform(Boxes)
    app.add_transform(Folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

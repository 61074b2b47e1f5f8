"""What stands beside the text, written in Markdown that Colab, an editor and GitHub show as well as the page does.

A block quotation that begins with a line in bold is a box with that title, and `Exercise 2.1` is an anchor, too:

    > **Predict before you run**
    >
    > What will it be?

What is folded away stays so everywhere:

    <details><summary>How sure is this?</summary>

    Text, formulas and code.

    </details>

On the page both become admonitions, the second a dropdown.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

OPENING = re.compile(r"<details><summary>(.*)</summary>\s*")
CLOSING = re.compile(r"</details>\s*")
KINDS = {"Predict": "tip", "In Colab": "tip", "Exercise": "exercise"}


def box(title: list[nodes.Node], body: list[nodes.Node], other: str) -> nodes.admonition:
    """An admonition with a title of its own, which says what kind it is; `other` when it does not."""
    said = "".join(node.astext() for node in title)
    kind = next((kind for word, kind in KINDS.items() if said.startswith(word)), other)
    ids = [nodes.make_id(said)] if kind == "exercise" else []
    return nodes.admonition("", nodes.title("", "", *title), *body, classes=["admonition", *kind.split()], ids=ids)


def is_raw(node: nodes.Node, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """What the pattern finds in a piece of HTML that stands by itself."""
    return pattern.fullmatch(node.astext()) if isinstance(node, nodes.raw) else None


def only(node: nodes.Node, kind: type[nodes.Element]) -> list[nodes.Node] | None:
    """The children of the one thing of that kind which makes up a paragraph, else None."""
    parts = [part for part in node.children if part.astext()] if isinstance(node, nodes.paragraph) else []
    return parts[0].children if len(parts) == 1 and isinstance(parts[0], kind) else None


class Boxes(SphinxTransform):
    """Turns quotations with a bold first line into admonitions."""

    default_priority = 210  # before references are resolved

    def apply(self) -> None:
        """Look at every quotation of the page."""
        for quote in list(self.document.findall(nodes.block_quote)):
            title = only(quote[0], nodes.strong) if len(quote) else None
            if title is not None:
                quote.replace_self(box(title, quote[1:], "plain"))


class Folds(SphinxTransform):
    """Turns what stands between the tags of <details> into a dropdown."""

    default_priority = 210

    def apply(self) -> None:
        """Look at every opening tag of the page."""
        for start in [node for node in self.document.findall(nodes.raw) if is_raw(node, OPENING)]:
            parent, place = start.parent, start.parent.index(start)
            end = next((i for i in range(place, len(parent)) if is_raw(parent[i], CLOSING)), None)
            if end is None:
                raise ExtensionError(f"{self.env.docname}: {start.astext().strip()} is never closed.")
            title = [nodes.Text(is_raw(start, OPENING)[1])]  # type: ignore[index]
            parent[place : end + 1] = [box(title, parent[place + 1 : end], "fold dropdown")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.add_transform(Boxes)
    app.add_transform(Folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

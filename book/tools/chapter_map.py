"""The map of the book: a line per chapter, with the time it takes to read and to run.

    ```{chapter-map}
    notebooks/01_basics: what it needs | what it gives
    ```

The time to read is an estimate, the words of the text at 200 a minute. The time to run was measured: it is the
processor time that `chapters.py` noted in the notebook.
"""

import json
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WORDS_A_MINUTE = 200


def words(book: dict) -> int:
    """The words of a notebook's text; a formula counts as one, and addresses and what is folded away do not."""
    text = "\n\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", " formula ", text, flags=re.S)
    text = re.sub(r"(?<=\])\([^()]*\)", "", text)  # where links lead
    return len(re.findall(r"\w[\w'’-]*", text))


def times(book: dict) -> str:
    """How long a chapter takes, in words."""
    read = round(words(book) / WORDS_A_MINUTE)
    seconds = book["metadata"].get("seconds")
    run = f", {max(1, round(seconds / 60))} to run" if seconds else ""
    return f"{read} minutes to read{run}"


class ChapterMap(SphinxDirective):
    """Turns each line into an entry of a definition list."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read the chapters' sources and hand the entries to the page's parser."""
        lines = []
        for number, line in enumerate(filter(None, self.content), 1):
            found = re.fullmatch(r"(\S+): (.+) \| (.+)", line)
            if found is None:
                raise self.error(f"{{chapter-map}} wants lines like 'notebooks/NAME: needs | gives'; got {line!r}.")
            page, needs, gives = found.groups()
            path = f"{self.env.srcdir}/{page}.ipynb"
            self.env.note_dependency(path)
            with open(path, encoding="utf-8") as file:
                took = times(json.load(file))
            lines += [f"{number}. {{doc}}`/{page}` *{took}*", ""]
            lines += [f"   **You need** {needs}.", f"   **You get** {gives}.", ""]
        target = nodes.container(classes=["chapter-map"])
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, target)
        return [target]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("chapter-map", ChapterMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

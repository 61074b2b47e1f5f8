"""The table of settings that `minidiff evaluate --sweep` compared, read from the file that it wrote."""

import json
import pathlib

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FILE = pathlib.Path(__file__).parents[1] / "_static" / "evaluation" / "sweep.json"
MARKS = {"base_100": "right base among 100", "style": "right style", "similarity": "similarity"}


def table() -> list[str]:
    """Markdown: a line for each setting, with means, their intervals, and the standard deviation over seeds."""
    lines = [f"| guidance | steps | interval | {' | '.join(MARKS.values())} |", "|---" * (len(MARKS) + 3) + "|"]
    for row in json.loads(FILE.read_text(encoding="utf-8"))["rows"]:
        low, high = row["interval"]
        cells = [f"{row['guidance']:g}", str(row["steps"]), f"{low:g} to {high:g}"]
        cells += ["{mean:.2f} [{low:.2f}, {high:.2f}] ± {seed_std:.2f}".format(**row[mark]) for mark in MARKS]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


class Sweep(SphinxDirective):
    """The parsed table; the page depends on the file."""

    def run(self) -> list[nodes.Node]:
        """Hand the lines to the page's parser."""
        self.env.note_dependency(str(FILE))
        node = nodes.container()
        self.state.nested_parse(StringList(table(), source=str(FILE)), self.content_offset, node)
        return [node]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("sweep", Sweep)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

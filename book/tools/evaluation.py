"""The directive that shows the tables of `evaluation_tables`: {evaluation} with the name of one."""

from docutils import nodes
from docutils.statemachine import StringList
from evaluation_tables import FOLDER, TABLES
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Evaluation(SphinxDirective):
    """One of the tables, parsed; the page depends on the files."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Hand the lines to the page's parser."""
        for path in FOLDER.glob("*.json"):
            self.env.note_dependency(str(path))
        node = nodes.container(classes=["measured"])
        lines = TABLES[self.arguments[0]]()
        self.state.nested_parse(StringList(lines, source=str(FOLDER)), self.content_offset, node)
        return [node]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("evaluation", Evaluation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

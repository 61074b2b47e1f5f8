"""Tables of what the flagship was measured to do, from the files that `minidiff evaluate` wrote.

    ```{evaluation}
    test
    ```

A split's table, or `sweep` for the settings compared on the validation split.
"""

import json
import pathlib
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = pathlib.Path(__file__).parents[1] / "_static" / "evaluation"
MARKS = {"base_100": "right base among 100", "hard_20": "among 20 of its group", "style": "right style"}
MARKS |= {"similarity": "similarity to the true picture"}


def number(value: dict[str, float]) -> str:
    """A mean with its interval, and the standard deviation over seeds where there were several."""
    spread = value.get("seed_std")
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]" + (f" ± {spread:.3f}" if spread else "")


def split_table(split: str) -> list[str]:
    """A line for each who answers."""
    found: dict[str, Any] = json.loads((FOLDER / "evaluation.json").read_text())["splits"][split]
    shown = {mark: words for mark, words in MARKS.items() if mark in found["rows"]["model"]["all"]}
    lines = [f"| {found['pictures']} pictures | {' | '.join(shown.values())} |", "|---" * (len(shown) + 1) + "|"]
    for name, row in found["rows"].items():
        lines.append(f"| {name} | " + " | ".join(number(row["all"][mark]) for mark in shown) + " |")
    return lines


def sweep_table() -> list[str]:
    """A line for each setting."""
    found = json.loads((FOLDER / "sweep.json").read_text())
    lines = [f"| guidance | steps | interval | {' | '.join(MARKS.values())} |", "|---" * (len(MARKS) + 3) + "|"]
    for row in found["rows"]:
        low, high = row["interval"]
        setting = f"| {row['guidance']:g} | {row['steps']} | {low:g} to {high:g} | "
        lines.append(setting + " | ".join(number(row[mark]) for mark in MARKS) + " |")
    return lines


class Evaluation(SphinxDirective):
    """The table that the content names."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The parsed table; the page depends on the files."""
        wanted = self.content[0].strip()
        for path in FOLDER.glob("*.json"):
            self.env.note_dependency(str(path))
        node = nodes.container()
        lines = sweep_table() if wanted == "sweep" else split_table(wanted)
        self.state.nested_parse(StringList(lines, source=wanted), self.content_offset, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("evaluation", Evaluation)
    return {"parallel_read_safe": True}

"""Quizzes that answer in the page: a question, a list of options, and what is to be said of each.

    The question?

    1. An option.
    2. Another.

    <details><summary>Answers</summary>

    1. No. Why not.
    2. Yes. Why.

    </details>

On the page each option opens when it is chosen, by mouse or keyboard, and shows its answer; this is plain HTML and
needs no script. In Colab the same text reads as a question with its options and, folded away, the answers.
"""

from html import escape

from asides import CLOSING, OPENING, is_raw
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform


def html(text: str) -> nodes.raw:
    """Markup between the nodes."""
    return nodes.raw("", text, format="html")


def quiz(question: nodes.Node, options: nodes.Node, answers: nodes.Node) -> list[nodes.Node]:
    """Put each option together with its answer. Exactly one answer begins with Yes, all others with No."""
    verdicts = [answer.astext().partition(".")[0] for answer in answers]
    if len(options) != len(answers) or verdicts.count("Yes") != 1 or set(verdicts) != {"Yes", "No"}:
        raise ExtensionError(f"Each option wants one answer, one 'Yes.', the others 'No.': {question.astext()}")
    asked = escape(question.astext())
    result = [html(f'<div class="quiz" role="group" aria-label="{asked}">'), question]
    for option, answer, verdict in zip(options, answers, verdicts, strict=True):
        result.append(html(f'<details class="quiz-option" data-right="{verdict.lower()}"><summary>'))
        result += [nodes.inline("", "", *paragraph.children) for paragraph in option]
        result += [html("</summary>"), *answer.children, html("</details>")]
    return [*result, html("</div>")]


class Quizzes(SphinxTransform):
    """Turns a question, its options and the answers folded below them into one."""

    default_priority = 205  # before all that is folded becomes a dropdown

    def apply(self) -> None:
        """Look at every fold of answers."""
        for start in list(self.document.findall(nodes.raw)):
            if (found := is_raw(start, OPENING)) is None or found[1] != "Answers":
                continue
            parent, place = start.parent, start.parent.index(start)
            around = parent[max(place - 2, 0) : place + 3]
            lists = [type(node) for node in around[1::2]] == [nodes.enumerated_list] * 2
            if not (lists and is_raw(around[-1], CLOSING)):
                raise ExtensionError(
                    f"{self.env.docname}: answers want a numbered list, above them one of options, and a question."
                )
            question, options, _, answers, _ = around
            parent[place - 2 : place + 3] = quiz(question, options, answers)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(Quizzes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

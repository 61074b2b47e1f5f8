"""Quizzes that answer in the page: a question, a list of options, and what is to be said of each.

    :::{quiz}
    The question?

    1. An option.
    2. Another.

    <details><summary>Answers</summary>

    1. No. Why not.
    2. Yes. Why.

    </details>
    :::

On the page each option opens when it is chosen, by mouse or keyboard, and shows its answer; this is plain HTML and
needs no script. In Colab the same text reads as a question with its options and, folded away, the answers.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def html(text: str) -> nodes.raw:
    """Markup between the nodes."""
    return nodes.raw("", text, format="html")


class Quiz(SphinxDirective):
    """One question. Exactly one answer begins with Yes, all others with No."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put each option together with its answer."""
        inner = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, inner)
        lists = [node for node in inner.children if isinstance(node, nodes.enumerated_list)]
        if len(lists) != 2 or len(lists[0]) != len(lists[1]):
            raise self.error("{quiz} wants two numbered lists of equal length: the options and the answers.")
        options, answers = lists
        verdicts = [answer.astext().partition(".")[0] for answer in answers]
        if sorted(set(verdicts)) != ["No", "Yes"] or verdicts.count("Yes") != 1:
            raise self.error(f"{{quiz}} wants one answer that begins with 'Yes.', the others 'No.'; got {verdicts}.")
        result = [html('<div class="quiz" role="group" aria-label="question">')]
        result += inner.children[: inner.children.index(options)]
        for option, answer, verdict in zip(options, answers, verdicts, strict=True):
            result.append(html(f'<details class="quiz-option" data-right="{verdict.lower()}"><summary>'))
            for paragraph in option:
                result.append(nodes.inline("", "", *paragraph.children))
            result += [html("</summary>"), *answer.children, html("</details>")]
        return [*result, html("</div>")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("quiz", Quiz)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

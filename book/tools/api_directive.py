"""`{api} minidiff.schedules`: the public things of a module, read from its source without importing it.

The book is built in an environment without torch, so nothing here runs the library: signatures and docstrings come
from the syntax tree. A docstring's paragraphs become text, its indented lines formulas, its `code` stays code;
no other markup is interpreted, so that no docstring can break the build.
"""

import ast
import functools
import pathlib
import re
import textwrap

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIGNS = {"->": "→", "<-": "←", "<=": "≤", ">=": "≥", "!=": "≠"}
Definition = ast.FunctionDef | ast.ClassDef


def prose(docstring: str | None, names: list[str] | None = None) -> str:
    """A docstring as Markdown: everything special escaped, `code` kept, indented lines as a formula.

    names: those of the arguments; what a paragraph says of them ("steps: 1 to 1000.") becomes a list.
    """
    if not docstring:
        return ""
    blocks = []
    for block in re.split(r"\n\s*\n", textwrap.dedent(docstring).strip("\n")):
        lines = re.sub(r"`[^`]*`", lambda code: re.sub(r"\s*\n\s*", " ", code[0]), block).splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append("```text\n" + textwrap.dedent(block) + "\n```")
            continue
        before, said, after = of_arguments(" ".join(line.strip() for line in lines), names)
        if said:
            items = [f"- {', '.join(f'`{name}`' for name in who)}: {escape(what)}" for who, what in said]
            blocks += [escape(before), "\n".join(items), escape(after)]
            continue
        text = ""  # a line that is indented or starts an item begins a new line on the page too
        for line in lines:
            starts = re.match(r"\s+\S|[-*] ", line) or (text.endswith((".", ";")) and re.match(r"\w+: ", line))
            text += ("\\\n" if text and starts else "\n" if text else "") + escape(line.strip())
        blocks.append(text)
    return "\n\n".join(blocks)


def of_arguments(text: str, names: list[str] | None) -> tuple[str, list[tuple[list[str], str]], str]:
    """What a paragraph says before it comes to arguments, of each of them, and of what is raised and returned."""
    if not names:
        return text, [], ""
    one = "(?:" + "|".join(map(re.escape, names)) + ")"
    before, *parts = re.split(rf"(?:(?<=[.;])\s+|^)({one}(?:(?:,| and) {one})*): ", text)
    if not parts:
        return text, [], ""
    *parts, last = parts
    last, *after = re.split(r"(?<=\.) (?=Raises |Returns )", last, maxsplit=1)
    said = list(zip(parts[::2], [*parts[1::2], last], strict=True))
    return before, [(re.split(", | and ", who), re.sub(";$", ".", what)) for who, what in said], "".join(after)


def escape(text: str) -> str:
    """Markdown that shows `text` as it stands, except that `this` is code and *this* is stressed."""
    parts = re.split(r"(``?[^`]+``?|(?<!\w)\*[a-z][a-z -]*\*(?!\w))", text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            for typed, sign in SIGNS.items():
                part = part.replace(typed, sign)
            parts[i] = re.sub(r"([\\*_{}\[\]()#+\-.!|$<>~^=`:%])", r"\\\1", part)
    return "".join(parts)


def signature(node: Definition) -> str:
    """`name(arguments) -> result`, as written; a class shows its constructor's or its fields' arguments."""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({arguments(node)}){result}"
    if init := constructor(node):
        return f"{node.name}({arguments(init)})"
    named = [ast.unparse(n) for n in fields(node)]
    return node.name + (f"({', '.join(named)})" if named and data_class(node) else "")


def constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    """The method that makes an object of a class, if it is written."""
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """What a class declares."""
    return [n for n in node.body if isinstance(n, ast.AnnAssign)]


def data_class(node: ast.ClassDef) -> bool:
    """Whether the fields of a class are its constructor's arguments."""
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list) or any(
        ast.unparse(base) == "NamedTuple" for base in node.bases
    )


def arguments(node: ast.FunctionDef) -> str:
    """The arguments of a function as written, without self."""
    return re.sub(r"^(self|cls)(, (?!/)|$)", "", ast.unparse(node.args))


def argument_names(node: Definition) -> list[str]:
    """The names of the arguments of a function, or of those that make an object of a class."""
    made = constructor(node) if isinstance(node, ast.ClassDef) else node
    if made is None:
        return [ast.unparse(n.target) for n in fields(node)]
    return [a.arg for a in ast.walk(made.args) if isinstance(a, ast.arg) and a.arg != "self"]


def public(body: list[ast.stmt]) -> list[Definition]:
    """The documented functions and classes whose names do not begin with an underscore."""
    return [
        n
        for n in body
        if isinstance(n, ast.FunctionDef | ast.ClassDef)
        and (not n.name.startswith("_") or n.name == "__call__")
        and ast.get_docstring(n)
    ]


def describe(node: Definition, inside_class: bool = False) -> list[str]:
    """The lines of Markdown that show one function, class or method."""
    kind = "class" if isinstance(node, ast.ClassDef) else "method" if inside_class else "function"
    marks = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
    if inside_class and "property" in marks:
        kind, head = "property", node.name
    else:
        head = signature(node)
    options = [f":{mark}:" for mark in ("classmethod", "staticmethod") if mark in marks]
    inner = prose(ast.get_docstring(node), argument_names(node)).splitlines()
    for member in public(node.body) if isinstance(node, ast.ClassDef) else []:
        inner += ["", *describe(member, inside_class=True)]
    fence = ":" * (7 if kind == "class" else 5)
    return [f"{fence}{{py:{kind}}} {head}", *options, "", *inner, fence, ""]


def source(module: str) -> pathlib.Path:
    """The file of a module or a package."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def shown_classes(module: str) -> set[str]:
    """The names of the classes of a module that have a place in the reference."""
    path = source(module)
    body = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
    return {node.name for node in public(body) if isinstance(node, ast.ClassDef)}


class Qualified(ast.NodeTransformer):
    """Spells the library's own types in full, as links want them; pages show the short name."""

    def __init__(self, module: str, tree: ast.Module):
        self.full = {name: f"{module}.{name}" for name in shown_classes(module)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minidiff"):
                shown = shown_classes(node.module or "")
                names = {alias.asname or alias.name: alias.name for alias in node.names}
                self.full |= {here: f"{node.module}.{there}" for here, there in names.items() if there in shown}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A name that stands for one of ours becomes its full path."""
        return ast.parse(self.full[node.id], mode="eval").body if node.id in self.full else node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Only what an argument is said to be, not its default."""
        if node.annotation:
            node.annotation = self.visit(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Its arguments and its result."""
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                self.visit_arg(argument)
        if node.returns:
            node.returns = self.visit(node.returns)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """The types of its fields, and its methods."""
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign):
                inner.annotation = self.visit(inner.annotation)
            elif isinstance(inner, ast.FunctionDef):
                self.visit(inner)
        return node


class Api(SphinxDirective):
    """Shows a module's documentation and whatever in it is public and documented."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the module's source and hand its Markdown to the page's parser."""
        name = self.arguments[0]
        path = source(name)
        if not path.exists():
            raise self.error(f"{{api}} {name}: there is no such module")
        self.env.note_dependency(str(path))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = Qualified(name, tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.visit(node)
        address = f"{self.config.html_theme_options['repository_url']}/blob/main/{path.relative_to(ROOT).as_posix()}"
        lines = [f"```{{py:module}} {name}", "```", "", *prose(ast.get_docstring(tree)).splitlines(), ""]
        lines += [f"[The file itself]({address}), {len(path.read_text(encoding='utf-8').splitlines())} lines.", ""]
        for node in public(tree.body):
            lines += describe(node)
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title("", "", nodes.literal(text=name))
        self.state.nested_parse(StringList(lines, source=str(path)), self.content_offset, section)
        return [section]


def setup(app) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The last touch on every page, when all are written: what the theme loads too late, in vain or unasked.

- The color scheme is known before anything is drawn: the theme's own script finds it out after the first paint. Pages
  know that scripts will run, so that folds are never seen open; without scripts they are, in the light colors.
- Pictures say how large they are, and the typefaces come at once, so that nothing jumps while the page loads. Figures
  are fetched when they are scrolled to; the frames of sliders are files, not a part of the page, which comes first.
- Icons come from the theme's typeface; the second copy of them, half a megabyte of script, is not fetched.
- The script of live cells, which has nothing to do in a book of stored outputs, is left out; that of the search is on
  its own page alone.
- Buttons of the table of contents have names; a table's empty corner is no heading.
- The theme listens to the first buttons for menu and contents that it finds; those of its header, which this book
  does not show, go, so that it finds the ones above the article. (Their names show without a script, too.)
- The search quotes the text, not the list of contents; folds are called by their titles for those who listen.
- The address of the book alone is a page, too: whoever shares it shows the title picture. So is what is not there.
"""

import base64
import hashlib
import pathlib
import re
from urllib.parse import unquote

import imagesize
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

THEMES = """dataset.theme = localStorage.getItem("theme") || "";
  </script>"""
SCHEME = """
  <script>
    document.documentElement.dataset.mode ||= "auto"; // or the theme complains, on a first visit
    if (!["light", "dark"].includes(document.documentElement.dataset.mode))
      document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    if (location.protocol !== "file:") // where typefaces may not be asked for in advance
      for (const name of ["serif-4-latin-normal", "serif-4-latin-italic", "sans-3-latin-normal"])
        document.head.append(Object.assign(document.createElement("link"), {
          rel: "preload", as: "font", type: "font/woff2", crossOrigin: "",
          href: document.documentElement.dataset.content_root + `_static/vendor/fonts/source-${name}.woff2`,
        }));
  </script>"""
VAIN = re.compile(
    r"<script[^>]*(?:fontawesome\.js|sphinx-thebe\.js)[^>]*></script>"
    r"|<link[^>]*sphinx-thebe\.css[^>]*>|<script>const THEBE_JS_URL[^\n]*</script>"
)
SEARCH = re.compile(r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>')
FRAMES = re.compile(r"url\(data:image/webp;base64,([A-Za-z0-9+/=]+)\)")
AWAKE = """<head>
    <script>document.documentElement.classList.add("js")</script>
    <noscript><style>.mdf-controls, minidiff-playground form { display: none !important; }</style></noscript>"""
SCRIPTS = {  # of the search and of the folds: what they say, and what they are to say
    "searchtools.js": (
        '[".headerlink", "script", "style"]',
        '[".headerlink", "script", "style", "#jb-print-docs-body", ".bd-header-article"]',
    ),
    "togglebutton.js": (
        'aria-label="Toggle hidden content"',
        'aria-label="Show or hide: ${item.querySelector(".admonition-title").textContent.trim()'
        '.replaceAll(`"`, "”")}"',
    ),
}
DUMB = re.compile(r"<summary>(?=<span class=\"toctree-toggle\")")

UNSEEN = re.compile(r'<button class="pst-navbar-icon sidebar-toggle [^>]*>.*?</button>', re.DOTALL)
LEADING = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    {head}
  </head>
  <body>
    <main>{body}</main>
  </body>
</html>
"""
TOLD = re.compile(r'(<button class="sidebar-toggle [^>]*) data-bs-placement="bottom" data-bs-toggle="tooltip">')


def finish(page: str, folder: pathlib.Path) -> str:
    """A page with these changes; folder: where it lies, to find its pictures."""

    def sized(tag: re.Match[str]) -> str:
        source = re.search(r'src="([^"#?:]+\.(?:png|jpg|webp|gif))"', tag[0])
        if not source or re.search(r"\s(?:width|height)=", tag[0]):
            return tag[0]
        path = folder / unquote(source[1])
        width, height = imagesize.get(path) if path.is_file() else (0, 0)
        late = ' loading="lazy"' if "_images/" in source[1] and "hero" not in source[1] else ""
        return f'<img width="{width}" height="{height}"{late}{tag[0][4:]}' if width > 0 else tag[0]

    if "data-content_root" not in page or SCHEME in page:  # a page that only leads to another; one that is finished
        return page
    if THEMES not in page:
        raise ExtensionError("The theme does not set its colors where it used to: see book/tools/finish.py.")
    page = page.replace(THEMES, THEMES + SCHEME).replace("<head>", AWAKE, 1)
    page = page.replace('<html lang="en"', '<html lang="en" data-theme="light"', 1)
    if 'id="search-results"' not in page:
        page = SEARCH.sub("", page)
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")  # it shows better words
    page = page.replace('role="doc-biblioentry"', 'role="listitem"')
    page = re.sub(r"<img\s[^>]*>", sized, TOLD.sub(r"\1>", UNSEEN.sub("", VAIN.sub("", page))))
    page = re.sub(r"(?<=<title>)(.*?) &#8212; \1(?=</title>)", r"\1", page)
    page = re.sub(r'<th class="([^"]*)">(?:<p>\s*</p>)?</th>', r'<td class="\1"></td>', page)
    return DUMB.sub('<summary aria-label="its parts">', page)


def unpacked(page: str, out: pathlib.Path) -> str:
    """The page, with the frames of its sliders as files in `out`/_images."""

    def moved(frames: re.Match[str]) -> str:
        data = base64.b64decode(frames[1])
        name = f"{hashlib.sha256(data).hexdigest()[:40]}.webp"
        (out / "_images" / name).write_bytes(data)
        return f"url({root}_images/{name})"

    root = next(iter(re.findall(r'data-content_root="([^"]*)"', page)), "")
    return FRAMES.sub(moved, page)


def leading(app: Sphinx) -> dict[str, str]:
    """The pages that lead into the book, by name."""
    out, start = pathlib.Path(app.outdir), f"{app.config.root_doc}.html"
    first = (out / start).read_text(encoding="utf-8")
    about = re.findall(r"<title>.*?</title>|<meta (?:property=\"og:|name=\"description)[^>]*>", first, re.DOTALL)
    site = app.config.ogp_site_url
    index = [
        *about,
        f'<link rel="canonical" href="{site}{start}">',
        f'<meta http-equiv="refresh" content="0; url={start}">',
    ]
    ways = {"Start": start, "Playground": "book/playground.html", "Search": "search.html"}
    links = " · ".join(f'<a href="{site}{page}">{words}</a>' for words, page in ways.items())
    style = """<style>
      :root { color-scheme: light dark; }
      body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem;
        background: light-dark(#fffdfa, #16171b); color: light-dark(#24211f, #e6e1da); }
      a { color: light-dark(#a2392a, #ff9d8b); }
    </style>"""
    lost_head = f'<title>Not found</title><link rel="icon" href="{site}_static/favicon.svg">{style}'
    lost = "<h1>This page is not there</h1><p>Not even as noise. It may have moved:</p>"
    return {
        "index.html": LEADING.format(
            head="\n    ".join(index), body=f'<p><a href="{start}">{app.config.html_title}</a></p>'
        ),
        "404.html": LEADING.format(head=lost_head, body=f"{lost}<p>{links}</p>"),
    }


def finish_all(app: Sphinx, error: Exception | None) -> None:
    """Every page of the book, and what no page asks for: maps for debugging, typefaces for old browsers."""
    if error or app.builder.format != "html":
        return
    for path in pathlib.Path(app.outdir).rglob("*.html"):
        page = finish(path.read_text(encoding="utf-8"), path.parent)
        path.write_text(unpacked(page, pathlib.Path(app.outdir)), encoding="utf-8")
    for name, page in leading(app).items():
        pathlib.Path(app.outdir, name).write_text(page, encoding="utf-8")
    for name, (told, better) in SCRIPTS.items():
        path = pathlib.Path(app.outdir, "_static", name)
        script = path.read_text(encoding="utf-8")
        if told not in script and better not in script:
            raise ExtensionError(f"{name} does not say {told} as it used to: see book/tools/finish.py.")
        path.write_text(script.replace(told, better), encoding="utf-8")
    for path in pathlib.Path(app.outdir, "_static").rglob("*.*"):
        if path.suffix in (".map", ".ttf") or path.name == "fontawesome.js":
            path.unlink()


def dark_code(app: Sphinx, config: Config) -> None:
    """Colors of code on dark pages; here, since options in _config.yml would replace all that Jupyter Book sets."""
    config.html_theme_options["pygments_dark_style"] = "github-dark"


def setup(app: Sphinx) -> dict[str, bool]:
    """Before anything is written, and after everything is."""
    app.connect("config-inited", dark_code)
    app.connect("build-finished", finish_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

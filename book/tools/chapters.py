"""Run the chapters, stamp their outputs, and find outputs that belong to older code.

`chapters.py run NOTEBOOK ...` executes chapters in full, top to bottom, in an empty folder, and stamps them.
`chapters.py time NOTEBOOK ...` does the same and keeps nothing but how long it took, for the map of the book.
`chapters.py check NOTEBOOK ...` runs copies of them with small sizes, as a stranger would (for `make test`).
A stamp holds a hash of the code cells (without the first, which holds the address and the version) and of the data
and checkpoints that they name: outputs whose stamp differs are older than what they claim to show.
"""

import base64
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASSETS = ROOT / "minidiff" / "assets"
WIDGET = "application/vnd.jupyter.widget-view+json"
Notebook = dict[str, Any]
# Sockets in the file system: on a busy machine two kernels that start at once can be given the same free port, and
# one of them dies (jupyter_client issue 487).
CONFTEST = """
import functools
import tempfile

from nbval import kernel

folder = tempfile.TemporaryDirectory()
kernel.KernelManager = functools.partial(kernel.KernelManager, transport="ipc", ip=f"{folder.name}/kernel")
"""


def code_cells(book: Notebook) -> list[str]:
    """The sources of the code cells, without the setup cell."""
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"][1:]


def asset_hashes(code: str) -> dict[str, str]:
    """A hash for each folder of data whose name occurs in the code, and of weights whose name is quoted there.

    Descriptions (.md) do not count.
    """
    hashes = {}
    named = (p for p in ASSETS.rglob("*") if p.is_dir() and (p.name if p.parent == ASSETS else f'"{p.name}"') in code)
    for folder in sorted(named):
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.name.encode() + path.read_bytes())
        if files:
            hashes[folder.name] = digest.hexdigest()[:16]
    return hashes


def stamp_of(book: Notebook) -> dict[str, Any]:
    """What the outputs of this notebook depend on."""
    cells = code_cells(book)
    code = hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]
    return {"code": code, "assets": asset_hashes("\n".join(cells))}


def clean(book: Notebook) -> None:
    """Remove what must not be committed: the state of widgets, which is dead on a page, and times of execution."""
    book["metadata"].pop("widgets", None)
    for cell in book["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
        if "outputs" in cell:
            cell["outputs"] = [
                o for o in cell["outputs"] if "data" not in o or set(o["data"]) - {"text/plain"} or keep(o)
            ]


def compress(book: Notebook) -> None:
    """Write the pictures anew, smaller."""
    for output in (o for cell in book["cells"] for o in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data:
            before = base64.b64decode(data["image/png"])
            after = smaller(before, 100.0 if "text/html" in data else 1.0)  # what stands in for a slider may be rough
            data["image/png"] = base64.b64encode(min(before, after, key=len)).decode()


def smaller(png: bytes, most: float = 1.0) -> bytes:
    """A picture with a palette of 256 colors where it looks the same (charts do), else with 64 levels of each color.

    most: by how much of 255 the palette may move values, root mean square. The 64 levels move none by more than 2.
    """
    import numpy as np
    import oxipng
    from PIL import Image

    picture, after = Image.open(io.BytesIO(png)), io.BytesIO()
    if "A" in picture.getbands() and picture.getchannel("A").getextrema() != (255, 255):
        return png
    picture = picture.convert("RGB")
    palette = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    moved = np.asarray(palette.convert("RGB"), dtype=float) - np.asarray(picture, dtype=float)
    levels = [round(round(value * 63 / 255) * 255 / 63) for value in range(256)]
    (palette if np.square(moved).mean() <= most**2 else picture.point(levels * 3)).save(after, "PNG")
    return oxipng.optimize_from_memory(after.getvalue(), level=4)


def keep(output: Notebook) -> bool:
    """Whether an output that is only text is worth keeping: not the name of a widget or of a figure."""
    text = "".join(output["data"].get("text/plain", ""))
    return bool(text) and not text.startswith(("interactive(", "<function ", "<Figure size", "HBox(", "VBox("))


def run(paths: list[pathlib.Path], keep_outputs: bool = True) -> None:
    """Execute the chapters in full and write them back, stamped, with the seconds of processor time they took."""
    if os.environ.get("MINIDIFF_FAST"):
        sys.exit("The committed outputs come from a full run: unset MINIDIFF_FAST.")
    import nbclient
    import nbformat
    import psutil
    import zmq
    from jupyter_client.manager import AsyncKernelManager

    class Client(nbclient.NotebookClient):
        """A client that looks again: after it has answered a widget it can miss the news that a cell is done, and
        then wait for ever (nbclient issue 312). This is called once a second; asking for the events wakes it."""

        async def _async_check_alive(self) -> None:
            if self.kc is not None:
                self.kc.shell_channel.socket.get(zmq.EVENTS)
            await super()._async_check_alive()

    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for path in paths:
        began = time.monotonic()
        book = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
            kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
            resources = {"metadata": {"path": folder}}
            Client(book, km=kernel, timeout=600, resources=resources, coalesce_streams=True).execute()
            used = psutil.Process(kernel.provisioner.pid).cpu_times()
        if keep_outputs:
            clean(book)
            compress(book)
            book.metadata["minidiff"] = stamp_of(book)
        else:
            book = nbformat.read(path, as_version=4)
        book.metadata["seconds"] = round(used.user + used.system)  # unlike the clock's, whoever else computes
        book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        book.metadata["language_info"] = {"name": "python"}
        book.metadata.setdefault("accelerator", "GPU")
        nbformat.write(book, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {path.stat().st_size / 1e6:.2f} MB")


def check(paths: list[pathlib.Path]) -> None:
    """Run copies of the chapters in an empty folder, with small sizes, against the installed wheel."""
    import minidiff

    if pathlib.Path(minidiff.__file__).parents[1] == ROOT:
        sys.exit("The chapters must be checked against the installed wheel, not against the source tree.")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            shutil.copy(path, folder)
        pathlib.Path(folder, "conftest.py").write_text(CONFTEST)
        command = [sys.executable, "-m", "pytest", "--nbval-lax", "-n", "2", "--dist", "loadfile"]
        command += ["--nbval-cell-timeout", "300", "-p", "no:cacheprovider", "--rootdir", folder, folder]
        environment = {**os.environ, "MINIDIFF_FAST": "1", "OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.run(command, cwd=folder, env=environment, check=False).returncode)


if __name__ == "__main__":
    tasks = {"run": run, "time": functools.partial(run, keep_outputs=False), "check": check}
    tasks[sys.argv[1]]([pathlib.Path(name) for name in sys.argv[2:]])

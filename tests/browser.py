"""A small client for headless Chromium: it opens pages, tells what they load and what goes wrong, and acts on them.

It speaks the DevTools protocol over one WebSocket per page. Nothing else is needed than a Chromium or Chrome.
"""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request
from types import TracebackType
from typing import Any

import websocket

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILT = ROOT / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --mute-audio
    --hide-scrollbars --remote-debugging-port=0
"""


def find_browser() -> str | None:
    """The path of a Chromium or Chrome on this machine, or None."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (MAC if pathlib.Path(MAC).exists() else None)


class Browser:
    """A Chromium with a profile of its own, ended together with the `with` block."""

    def __init__(self, path: str):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [path, *FLAGS.split(), f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        notice = pathlib.Path(self.profile.name) / "DevToolsActivePort"
        until = time.monotonic() + 60
        while not (notice.exists() and notice.read_text().count("\n")):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("Chromium did not start.")
            time.sleep(0.05)
        self.port = int(notice.read_text().split()[0])

    def page(self, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new empty page of this size; a phone is 390 wide."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"])
        page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)  # it is in front, as a reader's page is
        return page

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.profile.cleanup()


class Page:
    """One page: what it requested (`requests`) and what went wrong in it (`errors`) since it was last opened."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.count = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer; events that come meanwhile are noted."""
        mine = self._call(method, parameters)
        while True:
            message = self._receive()
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def _call(self, method: str, parameters: dict[str, Any], **session: str) -> int:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters, **session}))
        return self.count

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self.socket.recv())
        what, about = message.get("method"), message.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif what == "Target.attachedToTarget":  # a worker: what it requests is noted too, from the first on
            for method in ("Network.enable", "Runtime.runIfWaitingForDebugger"):
                self._call(method, {}, sessionId=about["sessionId"])
        elif what == "Page.loadEventFired":
            self.loaded = True
        elif what == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif what == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} ({about['entry'].get('url', '')})")
        return message

    def open(self, address: str) -> None:
        """Load a page and wait until it and its fonts are there."""
        self.requests, self.errors, self.loaded = [], [], False
        self.send("Page.navigate", url=address)
        self._settle()

    def _settle(self) -> None:
        while not self.loaded:
            self._receive()
        try:
            self.run("document.fonts.ready.then(() => true)")
            self.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true), 50)))")
        except RuntimeError as error:
            if "navigated" not in str(error):
                raise
            self.loaded = False  # a page that only leads to another one: wait for that
            self._settle()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, such as ArrowRight, in the element that has the focus."""
        code = {
            "Tab": 9,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
            "Home": 36,
            "End": 35,
            "Enter": 13,
        }
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": "\r"} if key == "Enter" else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float] | None = None) -> None:
        """Press the mouse on an element and release it elsewhere (by default there: a click); shares of its size."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        ways = (("mousePressed", start), ("mouseMoved", end or start), ("mouseReleased", end or start))
        for kind, (x, y) in ways:
            place = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            held = 0 if kind == "mouseReleased" else 1
            self.send("Input.dispatchMouseEvent", type=kind, button="left", buttons=held, clickCount=1, **place)

    def resize(self, width: int, height: int) -> None:
        """Give the page this size in CSS pixels; under 600 it is a phone's."""
        phone = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
            screenWidth=width,
            screenHeight=height,
        )

    def screenshot(self, whole: bool = True) -> bytes:
        """The page as PNG, all of it or what fits the window."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def close(self) -> None:
        """Close the page."""
        self.send("Page.close")
        self.socket.close()

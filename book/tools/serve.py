"""Serve a folder on this machine only and print its address: `serve.py _build/html 8000`."""

import functools
import http.server
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with the types that browsers insist on; nothing is logged and nothing is cached."""

    extensions_map = {  # noqa: RUF012 (the base class declares it so)
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }

    def end_headers(self) -> None:
        """Let a rebuilt page show at the next reload."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Stay silent."""


def server(folder: str, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of `folder` on localhost: at `port` or, when that is taken, one of the next 20 (0: any free one)."""
    handler = functools.partial(Handler, directory=folder)
    for candidate in range(port, port + 20) if port else [0]:
        try:
            return http.server.ThreadingHTTPServer(("127.0.0.1", candidate), handler)
        except OSError:
            continue
    raise SystemExit(f"No free port from {port} to {port + 19}: pick one with make book PORT=9000.")


if __name__ == "__main__":
    book = server(sys.argv[1], int(sys.argv[2]))
    print(f"The book is at http://localhost:{book.server_port}/ (Ctrl-C ends it)", flush=True)
    try:
        book.serve_forever()
    except KeyboardInterrupt:
        print()

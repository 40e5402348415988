# SPDX-License-Identifier: Apache-2.0
"""A web server with raw images of any size: /4294967296.raw is one of 4 GiB.

Run as ``python -m benchmarks.server``; it prints its port, and ends when its
input does.  An image is one MiB of random bytes over and over: nothing in it
is a hole, and the server costs next to nothing.
"""

from __future__ import annotations

import http.server
import os
import pathlib
import sys
import threading

MiB = 1024 * 1024

_PIECE = os.urandom(MiB)


class Handler(http.server.BaseHTTPRequestHandler):

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        left = self._answer()
        while left:
            left -= self.wfile.write(_PIECE[:left])

    def _answer(self) -> int:
        size = int(pathlib.PurePosixPath(self.path).stem)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", f'"{size}"')
        self.end_headers()
        return size

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()

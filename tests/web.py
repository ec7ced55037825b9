"""A local web server for a folder, which lists it and supports range requests."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class Web(ThreadingHTTPServer):
    """A server that records its requests and can be made to misbehave.

    parts: whether range requests are supported.  asked: path and range of each request.  busy: how many of the next
    requests to refuse.  more: number of bytes to send beyond a requested range.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.parts, self.asked = True, list[tuple[str, str | None]]()
        self.busy = self.more = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    server: Web

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.server.busy:
            self.server.busy -= 1
            self.send_error(503)
            return None
        if not (wanted and self.server.parts and os.path.isfile(path)):
            return super().send_head()
        data = Path(path).read_bytes()
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 + self.server.more if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def end_headers(self) -> None:
        if self.server.parts:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server until the end of the `with` statement."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def web(folder: Path) -> AbstractContextManager[Web]:
    """Serve a folder until the end of the `with` statement."""
    return serving(Web(folder))

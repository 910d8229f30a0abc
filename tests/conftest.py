"""Fixtures shared by all tests."""

import http.server
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the public real cases; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the public real cases are not at {REAL_DATA}")
    return REAL_DATA


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        page = site.pages.get(self.path) or site.answer(self.path)
        if page is None:
            self.send_error(404)
            return
        if page.get("status") and page.setdefault("times", 10**9) > 0:
            page["times"] -= 1
            self.send_error(page["status"])
            return
        body, tag = page["body"], page.get("tag")
        start = 0
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if wanted and page.get("ranges", True) and (condition is None or condition == f'"{tag}"'):
            start = int(wanted.removeprefix("bytes=").rstrip("-")) + page.get("shift", 0)
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", page.get("type", "application/octet-stream"))
        self.send_header("Content-Length", str(len(body) - start))
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        end = len(body)
        if page.get("drops"):
            end = min(start + page["drops"].pop(0), len(body))
        self.wfile.write(body[start:end])
        self.close_connection = True


@pytest.fixture
def site():
    """A web server on this computer, with a page for every way a server can fail."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.site = SimpleNamespace(pages={}, requests=[], answer=lambda path: None)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def serve(path, body, **options):
        server.site.pages[path] = {"body": body, **options}
        return f"http://127.0.0.1:{server.server_port}{path}"

    def answer_with(function):
        """Ask ``function`` for the page of a path that no page was served at."""
        server.site.answer = function

    yield SimpleNamespace(
        serve=serve,
        answer_with=answer_with,
        requests=server.site.requests,
        port=server.server_port,
    )
    server.shutdown()
    server.server_close()

import dataclasses
import http.server
import threading
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Never touch the weights of the person who runs the tests."""
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def thin_state(architecture, seed=0):
    """All tensors of a stock network with real names and shapes, one number of storage each.

    A file of it is small, and everything about it but its values is real.
    """
    from napari_lungfm.models.weights.reference import reference_shapes

    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(1, generator=generator).expand(shape) if shape else torch.tensor(0)
        for name, shape in reference_shapes(architecture).items()
    }


@pytest.fixture
def thin():
    return thin_state


@pytest.fixture
def write(tmp_path):
    """Save something as a PyTorch file."""

    def save(content, name="file.pth", **options):
        path = tmp_path / name
        torch.save(content, path, **options)
        return path

    return save


@pytest.fixture
def catalogue(monkeypatch):
    """Change what the catalogue says of a published file."""
    from napari_lungfm.models import catalogue as module

    def change(name, **values):
        card, variant = module.resolve(name)
        files = tuple(
            dataclasses.replace(file, **values) if file.variant == variant else file
            for file in card.files
        )
        changed = dataclasses.replace(card, files=files)
        monkeypatch.setitem(module._CARDS, card.name, changed)
        return changed

    return change


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        page = site.pages.get(self.path)
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
    server.site = SimpleNamespace(pages={}, requests=[])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def serve(path, body, **options):
        server.site.pages[path] = {"body": body, **options}
        return f"http://127.0.0.1:{server.server_port}{path}"

    yield SimpleNamespace(serve=serve, requests=server.site.requests, port=server.server_port)
    server.shutdown()
    server.server_close()

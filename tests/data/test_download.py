"""Downloads from a server of our own: whole, cut off, refused, damaged, unreachable."""

import hashlib
import http.server
import socket
import threading

import pytest

from vix_flax.data import download
from vix_flax.data.download import Archive, fetch

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `cut`: ends the connection after so many bytes; `ranges`: as asked for."""

    cut, ranges, content, status = None, True, CONTENT, 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []  # the Range header of each request


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            return self.send_error(server.status)
        start = int(wanted.removeprefix("bytes=")[:-1]) if wanted and server.ranges else 0
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.cut])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["sha256", "md5"])
def archive(server, request):
    digest = hashlib.new(request.param, CONTENT).hexdigest()
    return Archive(f"http://127.0.0.1:{server.server_port}/data.zip", f"{request.param}:{digest}")


def test_a_download_has_its_name_when_it_is_whole(archive, server, tmp_path):
    path = fetch(archive, tmp_path / "new")
    assert path == tmp_path / "new" / "data.zip"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["data.zip"]
    assert fetch(archive, tmp_path / "new") == path
    assert len(server.asked) == 1  # what is there is not asked for again


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(archive, server, tmp_path, ranges):
    server.cut, server.ranges = 300_000, ranges
    with pytest.raises(ValueError, match=r"stopped after 300,000 bytes .*same command goes on"):
        fetch(archive, tmp_path)
    assert not (tmp_path / "data.zip").exists()
    server.cut = None
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_all_of_it_was_there_already(archive, server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_another_content_is_removed(archive, server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(ValueError, match=r"data\.zip has the \w+ \w+ instead of \w+"):
        fetch(archive, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_says_what_to_do(archive, server, tmp_path, status):
    server.status = status
    with pytest.raises(ValueError, match=rf"refused \({status} .*put it at {tmp_path}/data\.zip"):
        fetch(archive, tmp_path)


def test_a_full_disk_loses_nothing(archive, tmp_path):
    (tmp_path / "data.zip.part").symlink_to("/dev/full")
    with pytest.raises(ValueError, match="No space left on device"):
        fetch(archive, tmp_path)
    assert not (tmp_path / "data.zip").exists()


def test_nobody_answers(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
        with pytest.raises(ValueError, match=rf"cannot reach 127\.0\.0\.1: download {url} where"):
            fetch(Archive(url, "md5:0"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_looked_up_for_ever(tmp_path, monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *_, **__: forever.wait())
    with pytest.raises(ValueError, match=r"cannot reach example\.org.*put it at"):
        fetch(Archive("https://example.org/data.zip", "md5:0"), tmp_path)


def test_a_proxy_is_asked_instead(archive, server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    remote = Archive("http://nowhere.invalid/data.zip", archive.digest)
    assert fetch(remote, tmp_path).read_bytes() == CONTENT

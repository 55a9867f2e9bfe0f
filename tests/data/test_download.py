"""Downloads from a server on this machine that cuts, forgets and lies."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minivit.data import download
from minivit.data.download import RemoteFile, note_checksum, obtain
from minivit.errors import MinivitError

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path; the first folder of the path says how."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []  # (path, value of the Range header)
        self.gate = threading.Event()  # what "slow" waits for before the second half
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        self.thread = thread

    def url(self, behaviour):
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/data.bin"

    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        asked = self.headers.get("Range")
        self.server.requests.append((behaviour, asked))
        if behaviour == "missing":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if behaviour == "forgetful":  # ignores ranges
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        if behaviour == "lying":
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        if behaviour != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        first = len([1 for seen, _ in self.server.requests if seen == behaviour]) == 1
        if behaviour == "cut" and first:
            body = body[:100_000]
        if behaviour == "always cut":
            body = body[:0]
        if behaviour == "slow":
            self.wfile.write(body[:100_000])
            self.server.gate.wait(10)
            body = body[100_000:]
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    yield started
    started.stop()


def fetch(folder, *urls, notes=None, offline=False):
    remote = RemoteFile("data.bin", urls, DIGEST)
    return obtain(remote, folder, offline=offline, note=(notes if notes is not None else []).append)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("behaviour", ["fine", "unsized"])
def test_a_download(tmp_path, server, behaviour, capsys):
    folder = tmp_path / "new" / "folder"
    path = fetch(folder, server.url(behaviour))
    assert path == folder / "data.bin"
    assert path.read_bytes() == CONTENT
    assert names(folder) == ["data.bin"]
    assert capsys.readouterr() == ("", "")  # no progress bar where nobody watches


def test_what_is_there_is_not_fetched_again(tmp_path, server):
    notes = []
    (tmp_path / "data.bin").write_bytes(CONTENT)
    fetch(tmp_path, server.url("fine"), notes=notes)
    assert server.requests == [] and notes == []
    (tmp_path / "data.bin").write_bytes(b"other")
    assert fetch(tmp_path, server.url("fine"), notes=notes).read_bytes() == b"other"
    assert server.requests == [] and notes == []


def test_another_checksum_is_remarked_on(tmp_path):
    notes = []
    remote = RemoteFile("data.bin", (), DIGEST)
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    note_checksum(remote, path, notes.append)
    assert notes == []
    path.write_bytes(b"other")
    note_checksum(remote, path, notes.append)
    assert notes == [f"note: the checksum of {path} is not the official one; using the file as it is"]


@pytest.mark.skipif(download.fcntl is None, reason="this system has no locks of this kind")
def test_of_two_downloads_at_once_one_waits_for_the_other(tmp_path, server):
    notes = []

    def note(message):
        notes.append(message)
        server.gate.set()  # once the second has found the lock taken, the first may end

    remote = RemoteFile("data.bin", (server.url("slow"),), DIGEST)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(obtain, remote, tmp_path, offline=False, note=lambda message: None)
        while not server.requests and not first.done():
            time.sleep(0.01)
        second = threads.submit(obtain, remote, tmp_path, offline=False, note=note)
        assert first.result() == second.result() == tmp_path / "data.bin"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.requests == [("slow", None)]
    assert notes == [f"note: waiting for another download into {tmp_path}"]
    assert names(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("outcome", ["the part is gone", "a reason"])
def test_without_locks_a_quicker_process_is_not_a_failure(tmp_path, server, monkeypatch, outcome):
    def overtaken(url, part, expected):
        (tmp_path / "data.bin").write_bytes(CONTENT)
        if outcome == "a reason":
            return outcome
        raise FileNotFoundError(outcome)

    monkeypatch.setattr(download, "fcntl", None)
    monkeypatch.setattr(download, "_download_from", overtaken)
    notes = []
    assert fetch(tmp_path, server.url("fine"), notes=notes).read_bytes() == CONTENT
    assert len(notes) == 1 and notes[0].startswith("downloading")


def test_a_disk_without_locks_is_no_obstacle(tmp_path, server, monkeypatch):
    if download.fcntl is None:
        pytest.skip("this system has no locks of this kind")

    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(download.fcntl, "flock", refuse)
    assert fetch(tmp_path, server.url("fine")).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed(tmp_path, server):
    assert fetch(tmp_path, server.url("cut")).read_bytes() == CONTENT
    assert server.requests == [("cut", None), ("cut", "bytes=100000-")]
    assert names(tmp_path) == ["data.bin"]


def test_an_interrupted_run_is_resumed(tmp_path, server):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:123_456])
    assert fetch(tmp_path, server.url("fine")).read_bytes() == CONTENT
    assert server.requests == [("fine", "bytes=123456-")]


def test_a_server_without_ranges_starts_over(tmp_path, server):
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    assert fetch(tmp_path, server.url("forgetful")).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5), b"x" * 10])
def test_a_part_that_is_whole_or_wrong_is_put_right(tmp_path, server, left):
    (tmp_path / "data.bin.part").write_bytes(left)
    assert fetch(tmp_path, server.url("fine")).read_bytes() == CONTENT
    assert names(tmp_path) == ["data.bin"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("missing", "Not Found"), ("lying", "wrong checksum"), ("always cut", "after 0 of 300000 bytes")],
)
def test_the_next_mirror_steps_in(tmp_path, server, behaviour, reason):
    notes = []
    path = fetch(tmp_path, server.url(behaviour).replace(" ", "%20"), server.url("fine"), notes=notes)
    assert path.read_bytes() == CONTENT
    if behaviour != "always cut":
        assert any(reason in note for note in notes)
    assert names(tmp_path) == ["data.bin"]


def test_a_mirror_that_does_not_answer(tmp_path, server):
    nobody = "http://127.0.0.1:9/data.bin"
    assert fetch(tmp_path, nobody, server.url("fine")).read_bytes() == CONTENT


def test_when_every_mirror_fails_one_line_says_what_to_do(tmp_path, server):
    with pytest.raises(MinivitError) as error:
        fetch(tmp_path, server.url("missing"), server.url("lying"))
    message = str(error.value)
    assert "\n" not in message
    assert str(tmp_path / "data.bin") in message
    assert server.url("lying") in message
    assert "wrong checksum" in message and "shapes10" in message
    assert names(tmp_path) == []


def test_a_wrong_file_is_fetched_once_and_a_wrong_part_twice(tmp_path, server):
    with pytest.raises(MinivitError):
        fetch(tmp_path, server.url("lying"))
    assert len(server.requests) == 1
    server.requests.clear()
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:10])
    with pytest.raises(MinivitError):
        fetch(tmp_path, server.url("lying"))
    assert [asked for _, asked in server.requests] == ["bytes=10-", None]


def test_offline_nothing_is_asked_or_made(tmp_path, server):
    with pytest.raises(MinivitError, match="downloads are off"):
        fetch(tmp_path / "new", server.url("fine"), offline=True)
    assert server.requests == [] and names(tmp_path) == []


def test_no_place_for_the_file(tmp_path, server):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(MinivitError, match="read-only"):
            fetch(tmp_path, server.url("fine"))
    finally:
        tmp_path.chmod(0o755)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MinivitError, match=r"no .*data\.bin"):
        fetch(tmp_path / "file" / "folder", server.url("fine"))
    (tmp_path / "data.bin").mkdir()
    with pytest.raises(MinivitError, match=r"no .*data\.bin"):
        fetch(tmp_path, server.url("fine"))
    assert server.requests in ([], [("fine", None)])


def test_a_bar_is_shown_on_a_terminal(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(tmp_path, server.url("fine"))
    assert "data.bin" in capsys.readouterr().err

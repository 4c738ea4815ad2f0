"""Checkpoints from far away: over a loopback connection, whole and verified or not at all."""

import http.server
import io
import subprocess
import sys
import threading
import urllib.request

import pytest
import timm
import torch
from backbench.backbones import BadInput, Unavailable, load_backbone
from backbench.backbones.card import BackboneCard
from backbench.backbones.fetch import download

# Our own client with everything in it but the encryption, which needs a certificate: https:// to a plain server.
PLAIN = """
import http.client, urllib.request

class Plain(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(http.client.HTTPConnection, request)

urllib.request.install_opener(urllib.request.build_opener(Plain, urllib.request.ProxyHandler({})))
"""


class Server(http.server.ThreadingHTTPServer):
    """Gives `content` at any path; `/cut` ends half-way, `/slow` stops half-way, `/elsewhere` leads to plain http."""

    content = b""
    asked: list[str]

    @property
    def url(self):
        return f"https://127.0.0.1:{self.server_address[1]}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        content = self.server.content
        self.server.asked.append(self.path)
        if self.path == "/none":
            return self.send_error(404)
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/w.pth")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2 if self.path in ("/cut", "/slow") else len(content)
        self.wfile.write(content[:half])
        self.wfile.flush()
        if self.path == "/slow":
            self.server.stopped.set()
            self.server.go_on.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(7)
    return timm.create_model("test_resnet").state_dict()


@pytest.fixture
def server(weights, monkeypatch, tmp_path):
    from backbench.backbones import hub

    file = io.BytesIO()
    torch.save(weights, file)
    server = Server(("127.0.0.1", 0), Answers)
    server.content, server.asked = file.getvalue(), []
    server.stopped, server.go_on = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    exec(PLAIN, {})
    hub._answers.cache_clear()
    yield server
    urllib.request.install_opener(None)
    server.go_on.set()
    server.shutdown()
    server.server_close()


def load(url, sha256=None):
    checkpoint = {"path": url, "sha256": sha256}
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    return load_backbone(
        BackboneCard(name="net", source="timm", model="test_resnet", checkpoint=checkpoint, input=statistics)
    )


def left(tmp_path):
    return [path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_a_url_is_downloaded_once(server, weights, tmp_path):
    for _ in range(2):
        found = load(f"{server.url}/w.pth").body.state_dict()
        assert all(torch.equal(found[name], weights[name]) for name in found)
    assert server.asked == ["/w.pth"]
    assert left(tmp_path) == ["w.pth"]


def test_a_download_that_ends_too_early_leaves_nothing(server, tmp_path):
    with pytest.raises(Unavailable, match=r"net: .*/cut: cannot be downloaded \(.*ended \d+ bytes too early"):
        load(f"{server.url}/cut")
    assert left(tmp_path) == []


def test_another_file_than_the_card_means_is_not_kept(server, tmp_path):
    with pytest.raises(BadInput, match=r"the card says 0000.*and not kept"):
        load(f"{server.url}/w.pth", sha256="0" * 64)
    assert left(tmp_path) == []


def test_a_killed_download_leaves_no_file_under_the_final_name(server, tmp_path):
    path = tmp_path / "hub" / "w.pth"
    code = f"{PLAIN}\nfrom pathlib import Path\nfrom backbench.backbones.fetch import download\n"
    code += f"download({server.url + '/slow'!r}, Path({str(path)!r}))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        assert server.stopped.wait(60)
        process.kill()
    assert not path.exists()
    assert all(name.endswith(".partial") for name in left(tmp_path))
    download(f"{server.url}/w.pth", path)
    assert path.read_bytes() == server.content


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("/none", Unavailable, "the server answers 404 Not Found; is the address right"),
        ("/elsewhere", BadInput, "leads to http://.*over a line that anybody can change"),
    ],
)
def test_answers_that_are_no_weights(server, where, error, said, tmp_path):
    with pytest.raises(error, match=said) as caught:
        load(server.url + where)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("http://somewhere/w.pth", BadInput, "http:// is not read"),
        ("file:///etc/passwd", BadInput, "file:// is not read"),
        ("hf://only-one", BadInput, "hf://owner/name/file"),
        ("https://nowhere.invalid/w.pth", Unavailable, "no network to nowhere.invalid"),
        ("hf://owner/name/w.safetensors", Unavailable, "no network to huggingface.co"),
    ],
)
def test_what_cannot_be_had(path, error, said, monkeypatch, tmp_path):
    from backbench.backbones import fetch, hub

    for module in (fetch, hub):
        monkeypatch.setattr(module, "reachable", lambda host: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(error, match=said):
        load(path)

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app import smoke

from .conftest import make_client


@pytest.fixture
def serve():
    """Serve a test client's application on a real port."""
    servers = []

    def start(client) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self, body=None):
                if self.command == "POST":
                    got = client.post(self.path, data=body)
                else:
                    got = client.get(self.path, allow_redirects=False)
                self.send_response(got.status_code)
                if "location" in got.headers:
                    self.send_header("location", got.headers["location"])
                self.send_header("content-length", str(len(got.content)))
                self.end_headers()
                self.wfile.write(got.content)

            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_good_version_passes(serve, capsys):
    with make_client(version="1.2.3") as c:
        assert smoke.main(serve(c) + "/") == 0
    assert "version 1.2.3 makes and follows links" in capsys.readouterr().out


def test_a_broken_version_fails_with_what_it_answered(serve, capsys):
    with make_client(fault_rate=1.0) as c:
        assert smoke.main(serve(c)) == 1
    assert "GET / answers 500" in capsys.readouterr().out


def test_nobody_there_fails():
    with pytest.raises(smoke.Failed, match="does not answer"):
        smoke.check("http://127.0.0.1:9", within=0)


@pytest.mark.parametrize(
    "answers, want",
    [
        ({"/": (200, {"version": "1"}, None), "/links": (500, {}, None)}, "a link cannot be made"),
        ({"/": (200, {"version": "1"}, None), "/links": (201, {"code": "abc"}, None), "/abc": (307, {}, "http://elsewhere")}, "the link abc leads to 307 http://elsewhere"),
    ],
)
def test_links_are_tried(monkeypatch, answers, want):
    def ask(url, body=None):
        status, body, location = answers[url.removeprefix("http://s")]
        return status, {"location": location}, json.dumps(body).encode()

    monkeypatch.setattr(smoke, "ask", ask)
    with pytest.raises(smoke.Failed, match=want):
        smoke.check("http://s")

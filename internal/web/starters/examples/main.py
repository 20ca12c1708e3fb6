"""A small service without dependencies: says hello, and whether it is ready."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def respond(path: str) -> tuple:
    """Return status and document of a path."""
    if path == "/":
        return 200, {"message": "It works"}
    if path == "/healthz":
        return 200, {"status": "ok"}
    return 404, {"error": "there is nothing here"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, document = respond(self.path)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    # Finish what is under way when the platform asks to stop.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()

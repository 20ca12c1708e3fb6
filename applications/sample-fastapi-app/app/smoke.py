"""Smoke test of a running service: what a user would try first.

    python3 -m app.smoke http://shortener-canary

Staging runs it against every new version, which has no users there who would
notice. It exits with 1 and a sentence when something does not hold.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Optional, Tuple

LONGEST_WAIT = 10.0  # seconds until the service must accept connections


class Failed(Exception):
    """The service does not do what it should; the text says what."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are answers to look at, not to follow."""

    def redirect_request(self, *args, **kwargs):
        return None


_opener = urllib.request.build_opener(_Stay)


def ask(url: str, body: Optional[dict] = None) -> Tuple[int, dict, bytes]:
    """Send one request; an answer of any status is an answer."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with _opener.open(request, timeout=5) as answer:
            return answer.status, _headers(answer), answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, _headers(answer), answer.read()


def _headers(answer) -> dict:
    return {name.lower(): value for name, value in answer.headers.items()}


def reach(base: str, within: float) -> Tuple[int, dict, bytes]:
    """Ask for the front page until something answers."""
    end = time.monotonic() + within
    while True:
        try:
            return ask(base + "/")
        except OSError as err:
            if time.monotonic() >= end:
                raise Failed(f"{base} does not answer: {err}") from None
            time.sleep(0.2)


def check(base: str, within: float = LONGEST_WAIT) -> str:
    """Return the version that works, or raise Failed."""
    status, _, body = reach(base, within)
    if status != 200:
        raise Failed(f"GET / answers {status}: {body[:200].decode('utf-8', 'replace')}")
    version = json.loads(body)["version"]
    status, _, body = ask(base + "/links", {"url": "https://example.com/smoke"})
    if status != 201:
        raise Failed(f"a link cannot be made: {status}: {body[:200].decode('utf-8', 'replace')}")
    code = json.loads(body)["code"]
    status, headers, _ = ask(f"{base}/{code}")
    if status != 307 or headers.get("location") != "https://example.com/smoke":
        raise Failed(f"the link {code} leads to {status} {headers.get('location')}")
    return version


def main(base: str) -> int:
    try:
        version = check(base.rstrip("/"))
    except (Failed, OSError, ValueError, KeyError) as err:
        print(f"FAILED: {err}", flush=True)
        return 1
    print(f"version {version} makes and follows links", flush=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))

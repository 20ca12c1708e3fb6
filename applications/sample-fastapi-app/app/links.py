"""Links and their storage."""

import secrets
import sqlite3
import string
import threading
from dataclasses import dataclass
from typing import List, Optional
from urllib.parse import urlsplit

ALPHABET = string.ascii_letters + string.digits
CODE_LENGTH = 7
MAX_URL = 2048


class InvalidLink(ValueError):
    """The target or the wished-for code cannot be used; the text says why."""


class CodeTaken(Exception):
    """Another link has the wished-for code."""


@dataclass(frozen=True)
class Link:
    code: str
    target: str
    visits: int


def check_target(target: str) -> str:
    """Return the target, or raise InvalidLink."""
    if len(target) > MAX_URL:
        raise InvalidLink(f"the URL is longer than {MAX_URL} characters")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise InvalidLink("the URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidLink("the URL must begin with http:// or https:// and name a host")
    return target


def check_code(code: str) -> str:
    """Return the code, or raise InvalidLink."""
    if not 3 <= len(code) <= 32 or any(c not in ALPHABET + "-_" for c in code):
        raise InvalidLink("a code has 3 to 32 letters, digits, '-' or '_'")
    return code


class LinkStore:
    """Links in SQLite. Safe for use by several threads and processes."""

    def __init__(self, path: str):
        self._lock = threading.Lock()
        # Several pods share the file; who finds it locked waits, in seconds.
        self._db = sqlite3.connect(path, timeout=10, check_same_thread=False)
        with self._lock, self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS links"
                " (code TEXT PRIMARY KEY, target TEXT NOT NULL, visits INTEGER NOT NULL DEFAULT 0)"
            )

    def add(self, target: str, code: Optional[str] = None) -> Link:
        """Store a link under the code, or under a fresh random one."""
        check_target(target)
        wished = code is not None
        if wished:
            check_code(code)
        while True:
            chosen = code or "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
            try:
                with self._lock, self._db:
                    self._db.execute("INSERT INTO links (code, target) VALUES (?, ?)", (chosen, target))
                return Link(chosen, target, 0)
            except sqlite3.IntegrityError:
                if wished:
                    raise CodeTaken(chosen) from None

    def visit(self, code: str) -> Optional[Link]:
        """Count a visit and return the link, or None."""
        with self._lock, self._db:
            changed = self._db.execute("UPDATE links SET visits = visits + 1 WHERE code = ?", (code,)).rowcount
        return self.get(code) if changed else None

    def get(self, code: str) -> Optional[Link]:
        with self._lock:
            row = self._db.execute("SELECT code, target, visits FROM links WHERE code = ?", (code,)).fetchone()
        return Link(*row) if row else None

    def most_visited(self, limit: int = 20) -> List[Link]:
        with self._lock:
            rows = self._db.execute(
                "SELECT code, target, visits FROM links ORDER BY visits DESC, code LIMIT ?", (limit,)
            ).fetchall()
        return [Link(*row) for row in rows]

    def ready(self) -> bool:
        """Whether the database answers."""
        with self._lock:
            return self._db.execute("SELECT 1").fetchone() == (1,)

    def close(self) -> None:
        with self._lock:
            self._db.close()

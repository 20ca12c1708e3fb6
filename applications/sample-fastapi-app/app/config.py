"""Configuration by environment variables, with defaults from release.env."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

RELEASE_FILE = Path(__file__).resolve().parent.parent / "release.env"


@dataclass(frozen=True)
class Config:
    """Everything the service can be told.

    version: shown to callers and in the metrics.
    fault_rate: share of requests that answer 500, from 0 to 1.
    database: path of the SQLite file; ":memory:" keeps nothing.
    base_url: prefix of short links; empty for relative links.
    """

    version: str
    fault_rate: float
    database: str
    base_url: str


def read_release(path: Path = RELEASE_FILE) -> dict:
    """Read KEY=value lines; a missing file gives no values."""
    values = {}
    if path.exists():
        for line in path.read_text().splitlines():
            line = line.strip()
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                values[key.strip()] = value.strip()
    return values


def load(environ: Mapping[str, str] = os.environ, release: Path = RELEASE_FILE) -> Config:
    """Build the configuration; raises ValueError naming what is wrong."""
    values = {**read_release(release), **environ}
    raw = values.get("FAULT_RATE", "0")
    try:
        fault_rate = float(raw)
    except ValueError:
        raise ValueError(f"FAULT_RATE: {raw!r} is not a number from 0 to 1") from None
    if not 0 <= fault_rate <= 1:
        raise ValueError(f"FAULT_RATE: {raw!r} is not a number from 0 to 1")
    return Config(
        version=values.get("VERSION", "0.0.0"),
        fault_rate=fault_rate,
        database=values.get("DATABASE", "/tmp/links.db"),
        base_url=values.get("BASE_URL", "").rstrip("/"),
    )

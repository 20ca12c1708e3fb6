"""Structured logs with request ids, and Prometheus metrics."""

import json
import logging
import sys
import time
import uuid
from contextvars import ContextVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

request_id: ContextVar[str] = ContextVar("request_id", default="")


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            entry["request_id"] = request_id.get()
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(level: str = "INFO") -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # The middleware below writes one better line for every request.
    logging.getLogger("uvicorn.access").disabled = True


class Metrics:
    """The service's metrics in a registry of its own."""

    def __init__(self, version: str):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "Requests by route, method and status.", ["route", "method", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds", "Time to answer, by route.", ["route"], registry=self.registry
        )
        self.links = Counter("links_created_total", "Links created.", registry=self.registry)
        info = Gauge("app_info", "1, labelled with the version.", ["version"], registry=self.registry)
        info.labels(version=version).set(1)


class RequestMiddleware:
    """Gives every request an id, a log line and its metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics, version: str):
        self.app = app
        self.metrics = metrics
        self.version = version
        self.log = logging.getLogger("app.request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        rid = headers.get(b"x-request-id", b"").decode("latin-1")[:64] or uuid.uuid4().hex
        token = request_id.set(rid)
        began = time.perf_counter()
        status = 500

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] = list(message["headers"]) + [
                    (b"x-request-id", rid.encode("latin-1", "replace")),
                    (b"x-app-version", self.version.encode()),
                ]
            await send(message)

        try:
            await self.app(scope, receive, respond)
        finally:
            seconds = time.perf_counter() - began
            # The pattern, not the path: paths would make a metric each.
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.requests.labels(route, scope["method"], str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if route not in ("/healthz", "/readyz", "/metrics"):
                fields = {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "milliseconds": round(seconds * 1000, 2),
                }
                self.log.info("request", extra={"fields": fields})
            request_id.reset(token)

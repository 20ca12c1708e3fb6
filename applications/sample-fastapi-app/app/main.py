"""The service: routes and life cycle.

    uvicorn app.main:app --port 8000
"""

import logging
import random
from typing import List, Optional

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from .config import Config, load
from .links import CodeTaken, InvalidLink, Link, LinkStore
from .observability import Metrics, RequestMiddleware, configure_logging

log = logging.getLogger("app")


class NewLink(BaseModel):
    url: str
    code: Optional[str] = None


class LinkOut(BaseModel):
    code: str
    url: str
    short_url: str
    visits: int


def create_app(config: Config) -> FastAPI:
    """Build the application; every test gets its own."""
    app = FastAPI(title="Shortener", version=config.version)
    metrics = Metrics(config.version)
    store = LinkStore(config.database)
    app.state.ready = True
    app.add_middleware(RequestMiddleware, metrics=metrics, version=config.version)

    def out(link: Link) -> LinkOut:
        return LinkOut(code=link.code, url=link.target, short_url=f"{config.base_url}/{link.code}", visits=link.visits)

    def maybe_fail() -> None:
        if config.fault_rate and random.random() < config.fault_rate:
            log.error("a fault was switched on for this release")
            raise HTTPException(500, "this release is broken on purpose")

    @app.on_event("shutdown")
    def shutdown() -> None:
        app.state.ready = False
        store.close()
        log.info("stopped")

    @app.get("/")
    def index() -> dict:
        maybe_fail()
        return {"service": "shortener", "version": config.version}

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse)
    def readyz() -> str:
        if not app.state.ready or not store.ready():
            raise HTTPException(503, "not ready")
        return "ok"

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/links", response_model=LinkOut, status_code=201)
    def create(new: NewLink, request: Request) -> LinkOut:
        maybe_fail()
        try:
            link = store.add(new.url, new.code)
        except InvalidLink as err:
            raise HTTPException(422, str(err)) from None
        except CodeTaken as err:
            raise HTTPException(409, f"the code {err} is taken") from None
        metrics.links.inc()
        return out(link)

    @app.get("/links", response_model=List[LinkOut])
    def most_visited(limit: int = 20) -> List[LinkOut]:
        maybe_fail()
        return [out(link) for link in store.most_visited(max(1, min(limit, 100)))]

    @app.get("/links/{code}", response_model=LinkOut)
    def show(code: str) -> LinkOut:
        maybe_fail()
        link = store.get(code)
        if link is None:
            raise HTTPException(404, "there is no such link")
        return out(link)

    @app.get("/{code}")
    def follow(code: str) -> RedirectResponse:
        maybe_fail()
        link = store.visit(code)
        if link is None:
            raise HTTPException(404, "there is no such link")
        return RedirectResponse(link.target, status_code=307)

    return app


def production() -> FastAPI:
    """What uvicorn serves in a container: configured by the environment."""
    configure_logging()
    config = load()
    log.info("starting", extra={"fields": {"version": config.version}})
    return create_app(config)

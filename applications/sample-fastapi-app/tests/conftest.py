import pytest
from fastapi.testclient import TestClient

from app.config import Config
from app.main import create_app


def make_client(**changes) -> TestClient:
    values = {"version": "9.9.9", "fault_rate": 0.0, "database": ":memory:", "base_url": "http://s.example", **changes}
    return TestClient(create_app(Config(**values)))


@pytest.fixture
def client():
    with make_client() as c:
        yield c

import json
import logging

import pytest

from app.config import load
from app.links import InvalidLink, LinkStore
from app.observability import JSONFormatter

from .conftest import make_client


def test_a_link_is_made_followed_and_counted(client):
    made = client.post("/links", json={"url": "https://example.com/a?b=c"})
    assert made.status_code == 201
    code = made.json()["code"]
    assert made.json()["short_url"] == f"http://s.example/{code}"
    followed = client.get(f"/{code}", allow_redirects=False)
    assert followed.status_code == 307
    assert followed.headers["location"] == "https://example.com/a?b=c"
    assert client.get(f"/links/{code}").json()["visits"] == 1
    assert [link["code"] for link in client.get("/links").json()] == [code]


def test_a_wished_for_code_is_given_once(client):
    assert client.post("/links", json={"url": "http://a.example", "code": "docs"}).status_code == 201
    taken = client.post("/links", json={"url": "http://b.example", "code": "docs"})
    assert taken.status_code == 409
    assert "docs" in taken.json()["detail"]


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "javascript:alert(1)", "http://", "http://[x", "http://a/" + "x" * 3000])
def test_bad_targets_are_refused(client, url):
    assert client.post("/links", json={"url": url}).status_code == 422


@pytest.mark.parametrize("code", ["ab", "a b c", "../etc", "x" * 33])
def test_bad_codes_are_refused(client, code):
    assert client.post("/links", json={"url": "http://a.example", "code": code}).status_code == 422


def test_unknown_links_are_not_found(client):
    assert client.get("/nothing").status_code == 404
    assert client.get("/links/nothing").status_code == 404


def test_every_answer_names_the_version_and_the_request(client):
    answer = client.get("/", headers={"X-Request-ID": "abc"})
    assert answer.json()["version"] == "9.9.9"
    assert answer.headers["x-app-version"] == "9.9.9"
    assert answer.headers["x-request-id"] == "abc"
    assert len(client.get("/").headers["x-request-id"]) == 32


def test_probes_and_metrics(client):
    assert client.get("/healthz").text == "ok"
    assert client.get("/readyz").text == "ok"
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'app_info{version="9.9.9"} 1.0' in text
    assert 'http_requests_total{code="404",method="GET",route="/{code}"} 1.0' in text
    assert "http_request_duration_seconds_bucket" in text


def test_a_stopped_service_is_not_ready():
    with make_client() as c:
        c.app.state.ready = False
        assert c.get("/readyz").status_code == 503


def test_the_fault_switch_breaks_a_release_but_not_its_probes():
    with make_client(fault_rate=1.0) as c:
        assert c.get("/").status_code == 500
        assert c.post("/links", json={"url": "http://a.example"}).status_code == 500
        assert c.get("/readyz").status_code == 200


def test_configuration_by_environment(tmp_path):
    release = tmp_path / "release.env"
    release.write_text("# comment\nVERSION=1.2.3\nFAULT_RATE=0.5\n")
    config = load({}, release)
    assert (config.version, config.fault_rate) == ("1.2.3", 0.5)
    assert load({"VERSION": "2.0.0", "BASE_URL": "http://x/"}, release).version == "2.0.0"
    for bad in ("much", "2", "-1"):
        with pytest.raises(ValueError, match="FAULT_RATE"):
            load({"FAULT_RATE": bad}, release)


def test_links_survive_a_restart(tmp_path):
    path = str(tmp_path / "links.db")
    first = LinkStore(path)
    code = first.add("http://a.example").code
    first.close()
    second = LinkStore(path)
    assert second.get(code).target == "http://a.example"
    with pytest.raises(InvalidLink):
        second.add("nonsense")


def test_logs_are_json():
    record = logging.LogRecord("app", logging.INFO, "", 0, "hello %s", ("you",), None)
    record.fields = {"status": 200}
    entry = json.loads(JSONFormatter().format(record))
    assert entry["message"] == "hello you" and entry["status"] == 200 and entry["level"] == "info"

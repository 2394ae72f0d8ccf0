"""The control API from outside: a real server, real tokens, every refusal in one shape."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from ops import errors
from ops.access import ledger
from ops.access.ledger import LedgerRow
from ops.api.app import MAX_BODY_BYTES, STATUS, create_app
from ops.api.authentication import Authenticated
from ops.catalogue.archive import unpack
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.errors import NotRunning, OpsError
from ops.service.service import Service
from ops.sql.database import Database
from serve.errors import ServeError
from tests.ops.directories import TAR, archive_of, make_directory
from tests.ops.installation import Installation, client, install, served

BROKEN = "cannot be told to anybody: bst_of-somebody"
VERSIONS = "/models/sentiment/versions"

extra = APIRouter()


@extra.get("/extra")
def _extra(actor: Authenticated) -> str:
    return actor.name


@extra.get("/broken")
def _broken() -> None:
    raise RuntimeError(BROKEN)


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Iterator[Installation]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}", timeout_s=0.5)) as database:
        yield install(database, tmp_path)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, FastAPI]]:
    """A server for all tests; each has an installation of its own behind it."""
    app = create_app(
        Service(Database("sqlite:///nowhere"), ArtifactStore("nowhere")), extra_routers=[extra]
    )
    with served(app) as url:
        yield url, app


@pytest.fixture
def url(there: Installation, address: tuple[str, FastAPI]) -> str:
    url, app = address
    app.state.service = there.service
    return url


class Api:
    """A client of each person, and one of nobody."""

    def __init__(self, url: str, secrets: dict[str, str], closing: ExitStack) -> None:
        self._url, self._secrets, self._closing = url, secrets, closing
        self._clients: dict[str | None, httpx.Client] = {}

    def __getitem__(self, name: str | None) -> httpx.Client:
        if name not in self._clients:
            made = client(self._url, self._secrets[name] if name else None)
            self._clients[name] = self._closing.enter_context(made)
        return self._clients[name]


@pytest.fixture
def api(there: Installation, url: str) -> Iterator[Api]:
    with ExitStack() as closing_all:
        yield Api(url, there.secrets, closing_all)


def refused(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The body of an error, which has one shape."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "message", "problems"}
    assert body["error"] == kind
    assert body["message"]
    return body


def denials(there: Installation) -> list[LedgerRow]:
    with there.database.read() as connection:
        assert ledger.verify(connection) is None
        return [row for row in ledger.entries(connection) if row.denied]


def register(there: Installation, api: Api, who: str = "ana", weights: str = "1") -> httpx.Response:
    directory = there.folder / f"made-{weights}"
    if not directory.exists():
        make_directory(directory, weights=weights.encode(), golden={"fine": {"positive": 1.0}})
    return api[who].post(VERSIONS, content=archive_of(directory), headers=TAR)


def addresses(api: Api) -> list[tuple[str, str]]:
    """Every method and address that the OpenAPI document names."""
    document = api[None].get("/openapi.json").json()
    return [(method, path) for path, found in document["paths"].items() for method in found]


def test_every_address_takes_a_token(there: Installation, api: Api, url: str) -> None:
    open_to_all = {"/healthz", "/readyz", "/api/v1/broken"}
    asked = 0
    for method, path in addresses(api):
        if path in open_to_all:
            continue
        plain = re.sub(r"{\w+}", "1", path)
        for headers in ({}, {"authorization": "Bearer bst_x"}, {"authorization": "Basic YTpi"}):
            response = api[None].request(method, url + plain, headers=headers)
            body = refused(response, 401, "NotAuthenticated")
            assert "bst_x" not in body["message"]
            assert response.headers["www-authenticate"] == "Bearer"
        asked += 1
    assert asked > 20
    assert denials(there) == []  # of nobody known


@pytest.mark.parametrize("fault", ["expired", "revoked", "disabled"])
def test_token_that_counts_no_more(there: Installation, api: Api, fault: str) -> None:
    me = api["eve"].get("/tokens", params={"holder": "eve"}).json()["items"][0]
    if fault == "expired":
        there.clock.advance(timedelta(days=30))
    elif fault == "revoked":
        assert api["root"].delete(f"/tokens/{me['id']}").status_code == 200
    else:
        assert api["root"].post("/principals/eve/disable").status_code == 200
    body = refused(api["eve"].get("/me"), 401, "NotAuthenticated")
    assert fault in body["message"]
    (denial,) = denials(there)
    assert (denial.actor, denial.action) == ("eve", "token.use")


def test_without_the_right_nothing_happens_and_the_ledger_has_it(
    there: Installation, api: Api
) -> None:
    body = refused(register(there, api, "eve"), 403, "NotAllowed")
    assert body["message"] == (
        "eve lacks the permission register on sentiment; ask department platform-it (register on "
        "sentiment) or root (admin on *)"
    )
    (denial,) = denials(there)
    assert (denial.actor, denial.action, denial.model) == ("eve", "version.register", "sentiment")
    assert api["root"].get("/models").json()["items"] == []


def test_right_by_the_department_until_it_is_left(there: Installation, api: Api) -> None:
    assert register(there, api).status_code == 201
    member = "/principals/platform-it/members/mlops"
    assert api["root"].delete(member).status_code == 204
    refused(register(there, api, weights="2"), 403, "NotAllowed")
    assert api["root"].put(member).status_code == 204
    assert register(there, api, weights="2").json()["version"] == 2


def test_right_by_a_pattern(there: Installation, api: Api) -> None:
    directory = make_directory(there.folder / "risk")
    made = api["root"].post(
        "/models/risk-cards/versions", content=archive_of(directory), headers=TAR
    )
    assert made.status_code == 201
    assert api["bob"].get("/models/risk-cards/versions/1").status_code == 200
    register(there, api)
    refused(api["bob"].get(f"{VERSIONS}/1"), 403, "NotAllowed")


def test_versions_from_registering_to_deleting(there: Installation, api: Api) -> None:
    made = register(there, api)
    assert made.json().items() >= {"model": "sentiment", "version": 1, "existed": False}.items()
    again = register(there, api)
    assert (again.status_code, again.json()["existed"]) == (200, True)
    register(there, api, weights="2")
    page = api["ana"].get(VERSIONS, params={"limit": 1}).json()
    assert ([v["number"] for v in page["items"]], page["next"]) == ([2], "2")
    page = api["ana"].get(VERSIONS, params={"before": page["next"]}).json()
    assert ([v["number"] for v in page["items"]], page["next"]) == ([1], None)
    shown = api["ana"].get(f"{VERSIONS}/1").json()
    assert (shown["digest"], shown["author"]) == (made.json()["digest"], "ana")
    head = shown["card"]["head"]
    assert (head["labels"], head["problem_type"]) == (["negative", "positive"], "single_label")
    assert "golden.jsonl" in shown["files"]
    diff = api["ana"].get("/diff", params={"before": "sentiment@1", "after": "sentiment@2"}).json()
    assert (diff["golden"]["compared"], diff["labels"]) == (1, None)
    assert api["root"].delete(f"{VERSIONS}/1", params={"reason": "old"}).status_code == 204
    assert [v["number"] for v in api["ana"].get(VERSIONS).json()["items"]] == [2]
    refused(api["ana"].get(f"{VERSIONS}/1/archive"), 404, "UnknownVersion")


def test_archive_is_the_directory(there: Installation, api: Api) -> None:
    digest = register(there, api).json()["digest"]
    response = api["ana"].get(f"{VERSIONS}/1/archive")
    assert response.headers["bertstream-digest"] == digest
    unpack(io.BytesIO(response.content), there.folder / "copy")
    made = there.folder / "made-1"
    names = sorted(path.name for path in made.iterdir())
    assert sorted(path.name for path in (there.folder / "copy").iterdir()) == names
    for name in names:
        assert (there.folder / "copy" / name).read_bytes() == (made / name).read_bytes()


def test_pages_of_models_leave_out_none_whatever_the_database_sorts_by(
    there: Installation, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ab", "a-b", "a-c"]  # as PostgreSQL has them in English, where hyphens count last
    for name in names:
        body = archive_of(make_directory(there.folder / name, weights=name.encode()))
        sent = api["root"].post(f"/models/{name}/versions", content=body, headers=TAR)
        assert sent.status_code == 201
    models = Registry.models
    monkeypatch.setattr(
        Registry, "models", lambda self: sorted(models(self), key=lambda m: names.index(m.name))
    )
    found, options = [], {"limit": 1}
    while page := api["root"].get("/models", params=options).json():
        found += [model["name"] for model in page["items"]]
        if page["next"] is None:
            break
        options = {"limit": 1, "after": page["next"]}
    assert found == sorted(names)


def test_policy(there: Installation, api: Api) -> None:
    text = "model: sentiment\nwindow: []\nlabels: other\n"
    body = refused(api["root"].put("/policies", json={"text": text}), 422, "Invalid")
    assert [(p["line"], p["column"]) for p in body["problems"]] == [(2, 1), (3, 1)]
    checked = api["eve"].post("/policies/check", json={"text": text}).json()
    assert checked == {"problems": body["problems"], "finds": None}
    checked = api["eve"].post("/policies/check", json={"text": "model: sentiment"}).json()
    assert checked["problems"] == []
    assert "is found in 99 of 100 releases" in checked["finds"]
    done = api["root"].put("/policies", json={"text": "model: sentiment"}).json()
    assert (done["model"], done["changed"]) == ("sentiment", True)
    shown = api["ana"].get("/models/sentiment/policy").json()
    assert (shown["digest"], shown["text"]) == (done["digest"], "model: sentiment")
    assert shown["policy"]["labels"] == "same"
    refused(api["eve"].get("/models/sentiment/policy"), 403, "NotAllowed")
    register(there, api)
    told = api["ana"].get(f"{VERSIONS}/1/explanation").json()
    assert (told["may_go"], told["sentences"][0]) == (True, "sentiment@1 may be released now.")


def test_people_from_adding_to_revoking(there: Installation, api: Api, url: str) -> None:
    root = api["root"]
    assert root.post("/principals", json={"name": "zoe"}).json()["kind"] == "person"
    assert root.put("/principals/mlops/members/zoe").status_code == 204
    answer = root.post("/tokens", json={"holder": "zoe", "days": 1})
    assert answer.headers["cache-control"] == "no-store"
    issued = answer.json()
    assert not issued["ends_with_maker"]
    assert root.post("/tokens", json={"holder": "zoe", "days": None}).json()["ends_with_maker"]
    assert issued["token"].startswith(issued["prefix"])
    with client(url, issued["token"]) as zoe:
        me = zoe.get("/me").json()
        assert (me["name"], me["groups"]) == ("zoe", ["mlops", "platform-it"])
        assert [grant["permission"] for grant in me["grants"]] == ["register"]
        assert zoe.delete(f"/tokens/{issued['id']}").json()["revoked_at"]
        refused(zoe.get("/me"), 401, "NotAuthenticated")
    grant = {"holder": "zoe", "permission": "approve", "pattern": "sent*"}
    given = root.post("/grants", json=grant).json()
    assert given.items() >= {**grant, "granted_by": "root"}.items()
    assert root.get("/grants", params={"holder": "zoe"}).json()["items"] == [given]
    assert root.delete(f"/grants/{given['id']}").json() == given
    refused(root.delete(f"/grants/{given['id']}"), 404, "NotFound")
    refused(root.post("/principals", json={"name": "zoe"}), 409, "Conflict")
    groups = root.get("/principals", params={"kind": ["team", "department"], "limit": 2}).json()
    assert ([g["name"] for g in groups["items"]], groups["next"]) == (
        ["mlops", "platform-it"],
        "platform-it",
    )


def test_ledger(there: Installation, api: Api) -> None:
    register(there, api)
    refused(api["eve"].get("/ledger"), 403, "NotAllowed")
    page = api["root"].get("/ledger", params={"limit": 1}).json()
    assert [row["denied"] for row in page["items"]] == [True]
    page = api["root"].get("/ledger", params={"before": page["next"]}).json()
    assert [row["action"] for row in page["items"]] == ["version.register"]
    of_model = api["ana"].get("/ledger", params={"model": "sentiment"}).json()["items"]
    assert of_model == page["items"]
    verified = api["root"].get("/ledger/verification").json()
    assert (verified["holds"], verified["rows"], verified["broken_at"]) == (True, 2, None)


BAD_NAMES = (
    "x' OR '1'='1",
    "sentiment;--",
    '"; DROP TABLE models; --',
    "*",
    "senti*",
    "Sentiment",
    "a" * 64,
    "a\u00a0b",
    "%2e%2e",
    "é",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_none_are_refused(there: Installation, api: Api, name: str) -> None:
    quoted = httpx.URL("http://x").copy_with(path=f"/{name}").raw_path.decode()[1:]
    root = api["root"]
    refused(root.get(f"/models/{quoted}/versions"), 422, "Invalid")
    refused(root.post(f"/models/{quoted}/versions", content=b"", headers=TAR), 422, "Invalid")
    refused(root.get("/ledger", params={"model": name}), 422, "Invalid")
    refused(root.post("/principals", json={"name": name}), 422, "Invalid")
    refused(root.get("/tokens", params={"holder": name}), 422, "Invalid")
    if "*" not in name:
        grant = {"holder": "eve", "permission": "read", "pattern": name}
        refused(root.post("/grants", json=grant), 422, "Invalid")
    assert denials(there) == []


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/models", {"limit": 0}),
        ("/models", {"limit": 501}),
        ("/models", {"limit": "many"}),
        ("/ledger", {"limit": 10**30}),
        ("/ledger", {"before": -1}),
        ("/ledger", {"release": 2**40}),
        ("/ledger", {"since": "2026-01-01T00:00:00"}),  # of which zone?
        ("/ledger", {"since": "0001-01-01T00:00:00+14:00"}),  # before the first moment in UTC
        ("/ledger", {"since": "9999-12-31T23:59:59-14:00"}),
        ("/releases", {"before": 0}),
        ("/tokens", {"after": 2**40}),
        ("/models", {"after": "\u0000"}),
    ],
)
def test_pages_have_bounds(api: Api, path: str, options: dict[str, Any]) -> None:
    body = refused(api["root"].get(path, params=options), 422, "Invalid")
    assert body["problems"][0]["path"] == f"query.{next(iter(options))}"


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", str(2**40)])
def test_versions_are_numbers(api: Api, number: str) -> None:
    refused(api["root"].get(f"{VERSIONS}/{number}"), 422, "Invalid")


def test_bodies_have_bounds(api: Api) -> None:
    large = b"x" * (MAX_BODY_BYTES + 1)
    told = refused(api["root"].put("/policies", content=large), 413, "TooLarge")

    def parts() -> Iterator[bytes]:  # of a length that is not told before
        for _ in range(3):
            yield large[: MAX_BODY_BYTES // 2]

    assert api["root"].put("/policies", content=parts()).status_code == 413
    assert str(f"{MAX_BODY_BYTES:,}") in told["message"]
    text = "# " + "x" * 65_536
    refused(api["root"].put("/policies", json={"text": text}), 422, "Invalid")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"text": 1}',
        b'{"text": "x", "more": 1}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_malformed_bodies(api: Api, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = api["root"].put("/policies", content=content, headers=headers)
    assert response.status_code in (400, 422)
    refused(response, response.status_code, response.json()["error"])


def test_unknown_addresses(api: Api, url: str) -> None:
    assert "/api/v1/docs" in refused(api["root"].get("/nothing"), 404, "NotFound")["message"]
    refused(api["root"].patch("/models"), 405, "Refused")
    refused(api["root"].get("/models/"), 404, "NotFound")
    refused(api[None].get(f"{url}/docs"), 404, "NotFound")
    refused(api["root"].get("/models/nobody/versions"), 404, "UnknownVersion")
    refused(api["root"].get("/models/nobody/policy"), 404, "NotFound")
    refused(api["root"].get("/principals/nobody"), 404, "NotFound")


def test_no_other_site_is_let_in(api: Api, url: str, there: Installation) -> None:
    headers = {
        "origin": "https://elsewhere.example",
        "access-control-request-method": "GET",
        "authorization": f"Bearer {there.secrets['root']}",
    }
    for method in ("OPTIONS", "GET"):
        found = api[None].request(method, f"{url}/api/v1/me", headers=headers).headers
        assert not any(name.startswith("access-control-") for name in found)
        assert "set-cookie" not in found


def test_what_fails_unexpectedly_tells_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body = refused(api["root"].get("/broken"), 500, "InternalError")
    assert "bst_" not in str(body)


def test_secrets_are_in_no_log_and_no_error(
    there: Installation, api: Api, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        issued = api["root"].post("/tokens", json={"holder": "eve", "days": 1}).json()["token"]
        seen = [
            register(there, api, "eve").text,
            api["eve"].get("/tokens").text,
            api["root"].get("/tokens").text,
            api["root"].get("/ledger").text,
            api["root"].put("/policies", json={"token": issued}).text,
        ]
        with client(url, f"{issued}x") as wrong:
            seen.append(wrong.get("/me").text)
    told = "\n".join([*seen, *(record.getMessage() for record in caplog.records)])
    for secret in (issued, *there.secrets.values()):
        assert secret not in told


def test_database_that_is_gone(there: Installation, api: Api, url: str) -> None:
    assert api[None].get(f"{url}/readyz").json() == {"ready": True}
    there.database.close()
    (there.folder / "ops.db").rename(there.folder / "away.db")
    (there.folder / "ops.db").mkdir()
    refused(api["root"].get("/me"), 503, "DatabaseUnavailable")
    refused(api[None].get(f"{url}/readyz"), 503, "DatabaseUnavailable")
    assert api[None].get(f"{url}/healthz").json() == {"alive": True}
    (there.folder / "ops.db").rmdir()
    (there.folder / "away.db").rename(there.folder / "ops.db")
    assert api["root"].get("/me").status_code == 200


def test_readiness_can_ask_for_more(there: Installation, api: Api) -> None:
    def operator() -> None:
        raise NotRunning("the operator does not run")

    with served(create_app(there.service, readiness=[operator])) as url:
        body = refused(api[None].get(f"{url}/readyz"), 503, "NotRunning")
    assert body["message"] == "the operator does not run"


def test_another_router_has_the_same_door(api: Api) -> None:
    assert api["ana"].get("/extra").json() == "ana"


def test_everything_is_described(api: Api) -> None:
    document = api[None].get("/openapi.json").json()
    asked = 0
    for path, found in document["paths"].items():
        for method, operation in found.items():
            assert operation["summary"], (method, path)
            if path.startswith("/api"):
                assert {"4XX", "5XX"} <= operation["responses"].keys(), (method, path)
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), (method, path, parameter["name"])
                asked += 1
    assert asked > 40


def test_description_needs_no_other_site(api: Api) -> None:
    text = api[None].get("/docs").text
    for method, path in addresses(api):
        assert f"<span class=method>{method.upper()}</span> <code>{path}</code>" in text
    assert "<script" not in text
    assert "http" not in text
    for link in re.findall(r'href="#(\w+)"', text):
        assert f'id="{link}"' in text


def test_every_error_has_a_status() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, OpsError)]
    for kind in (*kinds, ServeError):
        assert any(base in STATUS for base in kind.__mro__)

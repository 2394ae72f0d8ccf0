"""The probes and who runs them: what each reads, and that none of them can hold up the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from ops.api.app import create_app
from ops.cli import main as cli
from ops.config.settings import PlatformConfig
from ops.errors import DatabaseUnavailable, NotReady, NotRunning, OpsError
from ops.health.findings import REPORT_FILE, Finding, Severity
from ops.health.golden_probe import MAX_CALLS, MAX_TEXTS, GoldenProbe, GoldenSet, Replicas, agrees
from ops.health.monitor import HealthMonitor, Schedule, kept
from ops.health.probes import (
    KEPT_DEATHS,
    AppsProbe,
    DatabaseProbe,
    DeathCounter,
    MachineProbe,
    certificate,
    telling,
)
from ops.health.readings import (
    DatabaseReading,
    Expected,
    Fault,
    PipelineReports,
    Readings,
    RoundTrip,
)
from ops.health.rules import Health, judge
from ops.health.wiring import expected_of
from ops.releases.routes import mark_published, put_route
from ops.service.service import Service
from ops.sql.database import Database
from ops.sql.lease import acquire
from ops.telemetry.observations import Observations
from serve.artifact import GoldenRecord
from serve.contract import Answer, BatchReply, BatchStats, CallOptions, Failure, FailureKind
from serve.registry import task_type
from stream.errors import BrokerUnreachable, ModelUnavailable
from stream.schema import ConsumerRecord, ControlRecord, VersionRoute
from stream.telemetry import TelemetryWindow
from tests.certificates import VALID_FOR, write_certificates
from tests.ops.installation import Installation, client, install, served

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DEADLINE_S = 20.0
NOTHING = Expected((), frozenset(), frozenset())
DIGEST = "d" * 64
ROUTE = ControlRecord(
    model="sentiment", epoch=3, versions={"1": VersionRoute(weight=1.0, digest=DIGEST)}
)


class Scripted:
    """A probe that does what it is told."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask, self.asked, self.closed = ask, 0, False

    def __call__(self) -> Any:
        self.asked += 1
        return self.ask()

    def close(self) -> None:
        self.closed = True


def failing(error: Exception) -> Scripted:
    def ask() -> Any:
        raise error

    return Scripted(ask)


def monitor(tmp_path: Path, deadline_s: float = 5.0, **probes: Scripted) -> HealthMonitor:
    return HealthMonitor(
        NOTHING,
        {name: Schedule(probe, deadline_s, every_s=0.0) for name, probe in probes.items()},
        lambda _now: PipelineReports(),
        clock=lambda: datetime.now(UTC),
        state_dir=tmp_path,
    )


def readings(health: Health) -> Readings:
    assert health.readings is not None
    return health.readings


# --- who runs them ------------------------------------------------------------------------


def test_a_probe_that_hangs_is_a_finding_and_no_other_waits_for_it(tmp_path: Path) -> None:
    go_on = threading.Event()
    hanging = Scripted(lambda: go_on.wait(DEADLINE_S) and RoundTrip(1.0))
    quick = Scripted(lambda: DatabaseReading(1.0, {}, None, None))
    watching = monitor(tmp_path, 0.2, round_trip=hanging, database=quick)
    began = datetime.now(UTC)
    first = watching.refresh(began, ())
    second = watching.refresh(began, first.findings)
    fault = readings(second).round_trip
    assert isinstance(fault, Fault)
    assert "no answer about round trip within" in fault.why
    assert isinstance(readings(second).database, DatabaseReading)
    assert (hanging.asked, quick.asked) == (1, 2)  # not again before it ends
    same = [f.since for h in (first, second) for f in h.findings if f.key == "kafka/round-trip"]
    assert len(set(same)) == 1
    go_on.set()
    end = time.monotonic() + DEADLINE_S
    while isinstance(readings(second).round_trip, Fault):
        assert time.monotonic() < end
        second = watching.refresh(began, second.findings)
    assert readings(second).round_trip == RoundTrip(1.0)


@pytest.mark.parametrize(
    "error", [DatabaseUnavailable("gone"), BrokerUnreachable("gone"), OSError("gone")]
)
def test_a_probe_that_fails_is_a_finding(tmp_path: Path, error: Exception) -> None:
    watching = monitor(tmp_path, machine=failing(error))
    health = watching.refresh(datetime.now(UTC), ())
    assert [(f.key, f.what) for f in health.findings] == [("machine/files", "gone")]
    again = watching.refresh(datetime.now(UTC), health.findings)
    assert again.findings[0].since == health.findings[0].since


def test_a_probe_that_is_wrong_is_a_finding_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = monitor(tmp_path, machine=failing(ZeroDivisionError("by zero"))).refresh(NOW, ())
    assert health.findings[0].what == "ZeroDivisionError: by zero"
    assert "health: machine" in caplog.text


def test_a_rare_question_is_not_asked_in_every_round(tmp_path: Path) -> None:
    probe = Scripted(lambda: None)
    probes = {"golden": Schedule(probe, 5.0, every_s=120.0)}
    rare = HealthMonitor(
        NOTHING, probes, lambda _: PipelineReports(), clock=lambda: NOW, state_dir=tmp_path
    )
    rare.refresh(NOW, ())
    rare.refresh(NOW, ())
    assert probe.asked == 1


def test_a_question_may_wait_until_others_are_done(tmp_path: Path) -> None:
    probe = Scripted(lambda: None)
    probes = {"golden": Schedule(probe, 5.0, every_s=120.0, first_after_s=60.0)}
    later = HealthMonitor(
        NOTHING, probes, lambda _: PipelineReports(), clock=lambda: NOW, state_dir=tmp_path
    )
    later.refresh(NOW, ())
    assert probe.asked == 0


def test_monitor_keeps_its_judgement_for_a_successor(tmp_path: Path) -> None:
    probe = failing(OSError("the disk is gone"))
    first = monitor(tmp_path, machine=probe)
    first.start()
    health = first.latest()
    first.stop()
    assert health.status is Severity.DEGRADED
    assert probe.closed
    on_file = kept(tmp_path / REPORT_FILE)
    assert on_file is not None
    assert on_file.findings == health.findings
    second = monitor(tmp_path, machine=failing(OSError("the disk is gone")))
    second.start()
    assert second.latest().findings[0].since == health.findings[0].since
    second.stop()


def test_what_is_kept_and_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / REPORT_FILE).write_text("{")
    assert kept(tmp_path / REPORT_FILE) is None


def test_a_judgement_that_is_old_says_so(tmp_path: Path) -> None:
    clock = {"now": datetime.now(UTC)}
    watching = HealthMonitor(
        NOTHING, {}, lambda _: PipelineReports(), clock=lambda: clock["now"], state_dir=tmp_path
    )
    with pytest.raises(NotReady, match="not been checked yet"):
        watching.require_fresh()
    watching.start()
    assert watching.latest().status is Severity.OK
    watching.require_fresh()
    watching.stop()
    clock["now"] += timedelta(seconds=61)
    assert watching.latest().findings[0].key == "health/age"
    with pytest.raises(NotReady, match="last checked 61 s ago"):
        watching.require_fresh()


# --- Serve apps ---------------------------------------------------------------------------


def serve_app(*dead: str, target: int = 2, deployed: float = 1.0) -> dict[str, Any]:
    replicas = [{"replica_id": f"r{n}", "state": "RUNNING"} for n in range(target)]
    replicas.append({"replica_id": "new", "state": "STARTING"})
    deployment = {
        "message": " it\nstarts ",
        "target_num_replicas": target,
        "replicas": replicas,
        "recent_dead_replicas": [{"replica_id": name} for name in dead],
    }
    return {
        "status": "RUNNING",
        "message": "",
        "last_deployed_time_s": deployed,
        "deployments": {"replica": deployment},
    }


def test_replicas_that_died_count_until_they_are_long_gone() -> None:
    seen = DeathCounter()
    assert seen.observe(serve_app("old"), NOW) == ()
    assert seen.observe(serve_app("old", "a"), NOW) == (NOW,)
    later = NOW + KEPT_DEATHS
    assert seen.observe(serve_app("old", "a", "b"), later) == (NOW, later)
    assert seen.observe(serve_app("a", "b"), later + timedelta(seconds=1)) == (later,)


def test_replicas_that_were_told_to_stop_did_not_die() -> None:
    seen = DeathCounter()
    seen.observe(serve_app(target=4), NOW)
    seen.observe(serve_app(target=2), NOW)
    assert seen.observe(serve_app("a", target=2), NOW) == ()
    assert seen.observe(serve_app("a", "b", target=2), NOW) == ()
    assert seen.observe(serve_app("a", "b", "c", target=2), NOW) == (NOW,)
    again = DeathCounter()
    again.observe(serve_app(), NOW)
    assert again.observe(serve_app("a", "b", deployed=2.0), NOW) == ()


@contextmanager
def ray_api(answer: dict[str, Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)


def test_apps_as_ray_tells() -> None:
    answer: dict[str, Any] = {"applications": {"echo@1": serve_app()}}
    with ray_api(answer) as url:
        probe = AppsProbe(url, None, lambda: NOW)
        (name, app), *_ = probe().items()
        assert (name, app.status, app.target, app.running) == ("echo@1", "RUNNING", 2, 2)
        assert app.message == "it starts"
        answer["applications"]["echo@1"] = serve_app("r0")
        assert probe()["echo@1"].deaths == (NOW,)
        answer["applications"].clear()
        assert probe() == {}
    with pytest.raises(NotRunning):
        probe()


# --- database -----------------------------------------------------------------------------


def test_routes_and_lease_as_the_database_tells(database: Database) -> None:
    clock = {"now": NOW}
    probe = DatabaseProbe(database, lambda: clock["now"])
    assert probe().routes == {}
    with database.begin() as connection:
        put_route(connection, ROUTE)
        acquire(connection, "operator", "one", now=NOW, lasts=timedelta(seconds=15))
    reading = probe()
    assert (reading.leader, reading.lease_until) == ("one", NOW + timedelta(seconds=15))
    assert reading.routes["sentiment"].record == ROUTE
    assert not reading.routes["sentiment"].published
    clock["now"] += timedelta(minutes=1)
    with database.begin() as connection:
        mark_published(connection, ROUTE)
    reading = probe()
    assert reading.routes["sentiment"].published
    assert reading.routes["sentiment"].since == NOW
    with database.begin() as connection:
        put_route(connection, ROUTE.model_copy(update={"epoch": 4}))
    assert probe().routes["sentiment"].since == clock["now"]


# --- the machine --------------------------------------------------------------------------


def test_certificates_say_when_they_end(tmp_path: Path) -> None:
    files = write_certificates(tmp_path)
    for path in files:
        found = certificate("api.tls_certfile", path)
        assert found.expires is not None
        assert abs(found.expires - datetime.now(UTC) - VALID_FOR) < timedelta(minutes=1)
    (tmp_path / "no.pem").write_text("no certificate")
    for name in ("no.pem", "missing.pem"):
        broken = certificate("kafka.ssl_certfile", tmp_path / name)
        assert broken.expires is None
        assert broken.fault


def test_chain_ends_with_its_first_and_authorities_with_their_last(tmp_path: Path) -> None:
    days = (10, 400)
    file = tmp_path / "several.pem"
    file.write_bytes(b"".join(good_for(timedelta(days=count)) for count in days))
    for what, expected in (("api.tls_certfile", 10), ("kafka.ssl_cafile", 400)):
        expires = certificate(what, file).expires
        assert expires is not None
        assert round((expires - datetime.now(UTC)) / timedelta(days=1)) == expected


def good_for(time_left: timedelta) -> bytes:
    """A certificate that signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of a test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    dated = builder.not_valid_before(now).not_valid_after(now + time_left)
    return dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_machine_looks_at_the_files_of_the_configuration(tmp_path: Path) -> None:
    ca = write_certificates(tmp_path).ca
    config = PlatformConfig.model_validate(
        {"state_dir": tmp_path, "kafka": {"bootstrap_servers": "b:1", "ssl_cafile": ca}}
    )
    reading = MachineProbe(config)()
    assert 0 < reading.free_bytes < reading.total_bytes
    assert [c.what for c in reading.certificates] == ["kafka.ssl_cafile"]
    with pytest.raises(OSError, match="gone"):
        MachineProbe(config.model_copy(update={"state_dir": tmp_path / "gone"}))()


# --- what the pipelines told --------------------------------------------------------------


def test_what_the_pipelines_told_of_themselves() -> None:
    now_ms = int(NOW.timestamp() * 1000)
    window = TelemetryWindow(pipeline="reviews", consumer=0, model="sentiment", version="1")
    answer = Answer(b"[]", None, None, None, 3, False)
    window.observe_answers([answer] * 110, [1.0] * 110)
    window.observe_failures([FailureKind.POISON] * 10)
    old = window.to_record(now_ms - 100_000, now_ms - 95_000, replica=None)
    new = window.to_record(now_ms - 10_000, now_ms - 5_000, replica=None)
    beat = ConsumerRecord(
        pipeline="reviews",
        consumer=0,
        model="sentiment",
        pid=1,
        at_ms=now_ms,
        epoch=1,
        versions=(),
        waiting=0,
        committed_ago_s=None,
        trouble=None,
        ended=False,
    )
    observations = Observations()
    observations.add([old, new, beat])
    config = PlatformConfig.model_validate(
        {
            "models": [{"name": "sentiment", "path": "m"}],
            "pipelines": [
                {
                    "name": "reviews",
                    "model": "sentiment",
                    "input_topics": ["in"],
                    "output_topic": "out",
                }
            ],
        }
    )
    told = telling(expected_of(config), observations, NOW)
    assert told.consumers == (beat,)
    assert told.windows == {"reviews": NOW - timedelta(seconds=5)}
    assert told.drained_per_s == {"reviews": 2.0}


def test_a_pipeline_that_was_idle_for_an_hour_is_not_behind_with_its_telemetry() -> None:
    """Its last window is far older than those that are looked at for rates."""
    window = TelemetryWindow(pipeline="reviews", consumer=0, model="sentiment", version="1")
    window.observe_answers([Answer(b"[]", None, None, None, 3, False)], [1.0])
    ended_ms = int((NOW - timedelta(hours=1)).timestamp() * 1000)
    beat = ConsumerRecord(
        pipeline="reviews",
        consumer=0,
        model="sentiment",
        pid=1,
        at_ms=int(NOW.timestamp() * 1000),
        epoch=1,
        versions=(),
        waiting=0,
        committed_ago_s=3600.0,
        trouble=None,
        ended=False,
    )
    observations = Observations()
    observations.add([window.to_record(ended_ms - 5_000, ended_ms, replica=None), beat])
    pipeline = {"name": "reviews", "model": "sentiment"}
    pipeline |= {"input_topics": ["in"], "output_topic": "out"}
    models = [{"name": "sentiment", "path": "m"}]
    config = PlatformConfig.model_validate({"models": models, "pipelines": [pipeline]})
    expected = expected_of(config)
    told = telling(expected, observations, NOW)
    readings = Readings(at=NOW, began=NOW - timedelta(hours=2), telling=told)
    troubles = {f.key for f in judge(expected, readings).findings if f.is_trouble}
    assert "pipeline/reviews/telemetry" not in troubles


def test_what_is_expected_follows_from_the_configuration() -> None:
    config = PlatformConfig.model_validate(
        {
            "models": [{"name": "sentiment", "path": "m"}],
            "pipelines": [
                {"name": "p", "model": "sentiment", "input_topics": ["in"], "output_topic": "out"}
            ],
        }
    )
    expected = expected_of(config)
    assert [pipeline.app_name for pipeline in expected.pipelines] == ["pipeline-p"]
    assert expected.models == {"sentiment"}
    assert expected.topics >= {"in", "out", "out.dead-letters", "bertstream.control"}


# --- golden texts -------------------------------------------------------------------------


def scored(**scores: float) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in scores.items()]


def answer(result: Any) -> Answer:
    return Answer(orjson.dumps(result), None, None, None, 3, False)


@pytest.mark.parametrize(
    ("expected", "found", "precision", "same"),
    [
        (scored(good=0.9, bad=0.1), scored(good=0.7, bad=0.3), "f32", True),
        (scored(good=0.9, bad=0.1), scored(bad=0.6, good=0.4), "bf16", False),
        (scored(good=0.52, bad=0.48), scored(bad=0.51, good=0.49), "bf16", True),
        (scored(good=0.52, bad=0.48), scored(bad=0.51, good=0.49), "f32", False),
        (scored(good=0.52, bad=0.48), scored(bad=0.51, good=0.49), "int8", True),
        (scored(good=0.9), scored(other=0.9), "f32", False),
        (scored(good=0.9), [], "f32", False),
        ([1.0, 0.0], [0.9, 0.0], "f32", True),
        ([1.0, 0.0], [0.9, 0.3], "bf16", False),
        ([1.0, 0.0], [1.0], "bf16", False),
    ],
)
def test_answers_agree_within_the_precision(
    expected: list[Any], found: list[Any], precision: str, *, same: bool
) -> None:
    scored = isinstance(expected[0], dict)
    agreement = task_type("text-classification" if scored else "feature-extraction").agreement
    record = GoldenRecord(record={"text": "a fine day"}, result=expected)
    assert agrees(agreement, record, answer(found), precision=precision) is same
    failure = Failure(FailureKind.POISON, "no")
    assert not agrees(agreement, record, failure, precision=precision)


class Version:
    """Replicas of sentiment@1: each call is answered by the next of them."""

    def __init__(self, *digests: str, label: str = "good") -> None:
        self.digests, self.label = digests, label
        self.calls: list[list[bytes]] = []
        self.fault: Exception | None = None
        self.fetched = 0

    def golden(self, _model: str, _number: int) -> GoldenSet:
        self.fetched += 1
        result = scored(good=0.9, bad=0.1)
        texts = [{"text": f"text {n}"} for n in range(MAX_TEXTS + 4)]
        records = [GoldenRecord(record=text, result=result) for text in texts]
        return GoldenSet("text-classification", records, CallOptions())

    def ask(
        self, _model: str, _label: str, values: list[bytes], options: CallOptions
    ) -> BatchReply:
        if self.fault is not None:
            raise self.fault
        assert options.format == "json"
        assert orjson.loads(values[1]) == {"text": "text 1"}
        digest = self.digests[len(self.calls) % len(self.digests)]
        self.calls.append(values)
        outcomes = [answer(scored(**{self.label: 0.9})) for _ in values]
        return BatchReply([*outcomes], BatchStats(1, 1, 1, 0.1, 0.1), digest)

    def probe(self, database: Database) -> GoldenProbe:
        replicas = Replicas(
            self.golden, self.ask, lambda _: len(self.digests), lambda _model, _label: "f32"
        )
        return GoldenProbe(database, frozenset({"sentiment"}), replicas, lambda: NOW)


@pytest.fixture
def routed(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}")) as database:
        with database.begin() as connection:
            put_route(connection, ROUTE)
            put_route(connection, ROUTE.model_copy(update={"model": "of-others"}))
        yield database


def test_every_replica_may_be_asked_and_the_texts_are_read_once(routed: Database) -> None:
    version = Version(DIGEST, DIGEST)
    probe = version.probe(routed)
    probe()
    (reading,) = probe().values()
    assert (reading.texts, reading.agreed, reading.others) == (2 * MAX_TEXTS, 2 * MAX_TEXTS, ())
    assert (len(version.calls), version.fetched) == (4, 1)
    many = Version(*[DIGEST] * 50)
    many.probe(routed)()
    assert len(many.calls) == MAX_CALLS


def test_replica_with_other_weights_is_told(routed: Database) -> None:
    (reading,) = Version(DIGEST, "e" * 64).probe(routed)().values()
    assert reading.others == ("e" * 64,)


def test_version_that_answers_differently_is_told(routed: Database) -> None:
    (reading,) = Version(DIGEST, label="bad").probe(routed)().values()
    assert (reading.texts, reading.agreed) == (MAX_TEXTS, 0)


@pytest.mark.parametrize("error", [ModelUnavailable("no replica"), NotRunning("no replica")])
def test_version_that_does_not_answer_is_told(routed: Database, error: Exception) -> None:
    version = Version(DIGEST)
    version.fault = error
    found = version.probe(routed)()
    assert [(name, r.fault) for name, r in found.items()] == [("sentiment@1", "no replica")]


# --- the address and the command ----------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Iterator[Installation]:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(Database(f"sqlite:///{path}", timeout_s=0.5)) as database:
        yield install(database, tmp_path)


def health(severity: Severity) -> Health:
    now = datetime.now(UTC)
    finding = Finding("kafka/brokers", severity, "they [do] so", now, "results", "look")
    return Health(now, (finding,), Readings(at=now, began=now, control={"sentiment": ROUTE}))


def service_with(there: Installation, latest: Callable[[], Health]) -> Service:
    return Service(there.database, there.service.models._store, there.clock, health=latest)


@pytest.mark.parametrize("severity", Severity)
def test_command_tells_and_its_exit_code_is_the_grade(
    there: Installation, monkeypatch: pytest.MonkeyPatch, severity: Severity
) -> None:
    service = service_with(there, lambda: health(severity))
    monkeypatch.setenv("BERTSTREAM_TOKEN", there.secrets["root"])
    with served(create_app(service)) as url:
        command = ["health", "--api", url, "--all", "--state-dir", str(there.folder)]
        shown = CliRunner().invoke(cli.app, command)
        as_json = CliRunner().invoke(cli.app, [*command, "--json"])
    assert shown.exit_code == as_json.exit_code == severity.grade
    assert "they [do] so" in shown.stdout
    found = json.loads(as_json.stdout)
    assert (found["status"], found["grade"]) == (severity, severity.grade)
    assert found["age_s"] < DEADLINE_S
    assert found["readings"]["control"]["sentiment"]["epoch"] == 3


def test_command_says_how_many_findings_it_may_not_show(
    there: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_with(there, lambda: health(Severity.DOWN))
    monkeypatch.setenv("BERTSTREAM_TOKEN", there.secrets["eve"])
    with served(create_app(service)) as url:
        command = ["health", "--api", url, "--state-dir", str(there.folder)]
        shown = CliRunner().invoke(cli.app, command)
        as_json = CliRunner().invoke(cli.app, [*command, "--json"])
    assert shown.exit_code == Severity.DOWN.grade
    assert "they [do] so" not in shown.stdout
    assert "1 findings are not shown" in shown.stdout
    found = json.loads(as_json.stdout)
    assert (found["findings"], found["hidden"], found["readings"]) == ([], 1, None)


def test_health_takes_a_token_and_no_permission(there: Installation) -> None:
    with served(create_app(service_with(there, lambda: health(Severity.OK)))) as url:
        with client(url, there.secrets["eve"]) as eve:
            assert eve.get("/health").status_code == 200
        with client(url) as nobody:
            assert nobody.get("/health").status_code == 401


def test_platform_that_nobody_watches_is_not_ready(there: Installation) -> None:
    watching = monitor(there.folder)
    service = service_with(there, watching.latest)
    app = create_app(there.service, readiness=[watching.require_fresh])
    with served(app) as url, client(url, there.secrets["eve"]) as eve:
        assert eve.get(f"{url}/readyz").status_code == 503
        assert eve.get("/health").status_code == 503  # of a service without a monitor
        watching.start()
        assert service.health.latest(eve_of(there)).status is Severity.OK
        assert eve.get(f"{url}/readyz").json() == {"ready": True}
        watching.stop()


def eve_of(there: Installation) -> Any:
    return there.service.access.authenticate(there.secrets["eve"])


def without_operator(state_dir: Path) -> dict[str, Any]:
    command = ["health", "--state-dir", str(state_dir), "--json"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 2, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_command_answers_where_no_operator_does(tmp_path: Path) -> None:
    (finding,) = without_operator(tmp_path)["findings"]
    assert (finding["severity"], finding["since"]) == ("down", None)
    assert "no platform runs here" in finding["what"]
    assert "bertstream up" in finding["todo"]
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    report = {"at": long_ago.isoformat(), "findings": [{"key": "kafka/brokers"}]}
    (tmp_path / REPORT_FILE).write_text(json.dumps(report))
    (finding,) = without_operator(tmp_path)["findings"]
    assert finding["since"] == long_ago.isoformat()
    just_now = report | {"at": datetime.now(UTC).isoformat()}
    (tmp_path / REPORT_FILE).write_text(json.dumps(just_now))
    assert len(without_operator(tmp_path)["findings"]) == 1  # nobody looks any more
    (tmp_path / REPORT_FILE).write_text(json.dumps(report))
    shown = CliRunner().invoke(cli.app, ["health", "--state-dir", str(tmp_path)])
    assert "since" in shown.stdout
    assert "60 min" in shown.stdout


def test_command_knows_what_the_operator_wrote_when_its_api_refuses(
    there: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Health:
        raise DatabaseUnavailable("the database is gone")

    watching = monitor(there.folder, machine=failing(OpsError("no disk")))
    watching.start()
    watching.latest()
    watching.stop()
    with served(create_app(service_with(there, gone))) as url:
        monkeypatch.setenv("BERTSTREAM_API", url)
        monkeypatch.setenv("BERTSTREAM_TOKEN", there.secrets["eve"])
        findings = without_operator(there.folder)["findings"]
    assert [f["key"] for f in findings] == ["operator/answers", "machine/files"]
    assert "the database is gone" in findings[0]["what"]

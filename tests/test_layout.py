"""Where the tests of each module are, and that test modules stand for themselves."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.source import ROOT, modules, tree

SHAPES = "shapes without logic"
# Modules without a test file of their name: the file that tests them, or why none does.
ELSEWHERE = {
    "serve/decoder.py": "tests/serve/tasks/test_fill_mask.py",
    "serve/echo.py": "tests/serve/test_replica.py",
    "serve/engine/protocol.py": SHAPES,
    "serve/errors.py": "tests/test_errors.py",
    "serve/json_fields.py": "tests/serve/test_reading.py",
    "serve/pooling.py": "tests/serve/test_module.py",
    "serve/probe_texts.py": "tests/serve/test_tokenizer_import.py",
    "serve/settings.py": "tests/test_docs.py",
    "serve/windows.py": "tests/serve/test_entities.py",
    "stream/app.py": "tests/e2e/test_platform.py",
    "stream/backoff.py": "tests/integration/test_start.py",
    "stream/errors.py": "tests/test_errors.py",
    "stream/interfaces.py": SHAPES,
    "stream/kafka/admin.py": "tests/integration/test_lag.py",
    "stream/kafka/readers.py": "tests/integration/test_versions.py",
    "stream/kafka/sink.py": "tests/integration/test_commit.py",
    "stream/kafka/source.py": "tests/integration/test_client_traps.py",
    "stream/kafka/topic_io.py": "tests/integration/test_codecs.py",
    "stream/records.py": SHAPES,
    "stream/times.py": "tests/ops/health/test_rules.py",
    "stream/topics.py": "tests/ops/platform/test_kafka_setup.py",
    "stream/worker.py": "tests/integration/test_takeover.py",
    "train/errors.py": "tests/test_errors.py",
    "train/settings.py": "tests/train/test_text_classification.py",
    "ops/access/grants.py": "tests/ops/access/test_people.py",
    "ops/analysis/evidence.py": SHAPES,
    "ops/api/authentication.py": "tests/ops/api/test_app.py",
    "ops/api/cost.py": "tests/ops/cli/test_cost.py",
    "ops/api/docs_page.py": "tests/ops/api/test_app.py",
    "ops/api/health.py": "tests/ops/api/test_app.py",
    "ops/api/ledger.py": "tests/ops/cli/test_ledger.py",
    "ops/api/models.py": "tests/ops/cli/test_models.py",
    "ops/api/people.py": "tests/ops/cli/test_people.py",
    "ops/api/policies.py": "tests/ops/cli/test_policies.py",
    "ops/api/shapes.py": "tests/ops/api/test_app.py",
    "ops/api/uploads.py": "tests/ops/cli/test_upload.py",
    "ops/catalogue/deployments.py": "tests/ops/releases/test_releases.py",
    "ops/catalogue/transfer.py": "tests/ops/catalogue/test_store.py",
    "ops/catalogue/versions.py": "tests/ops/catalogue/test_registry.py",
    "ops/cli/api_client.py": "tests/ops/cli/test_upload.py",
    "ops/cli/health.py": "tests/ops/health/test_restarts.py",
    "ops/cli/platform.py": "tests/e2e/test_platform.py",
    "ops/cli/status_tables.py": "tests/ops/embedded_kafka/test_status.py",
    "ops/cli/terminal.py": "tests/ops/cli/test_main.py",
    "ops/config/prices.py": "tests/ops/cost/test_billing.py",
    "ops/config/scaling.py": "tests/ops/scaling/test_scaler.py",
    "ops/config/state_dir.py": "tests/ops/cli/test_session.py",
    "ops/demo/commands.py": "tests/e2e/test_demo.py",
    "ops/demo/releases.py": "`make demo-release` takes minutes and judges itself",
    "ops/demo/stream.py": "tests/e2e/test_demo.py",
    "ops/demo/traffic.py": "`make demo-release` takes minutes and judges itself",
    "ops/demo/versions.py": "`make demo-release` takes minutes and judges itself",
    "ops/embedded_kafka/broker_config.py": "tests/ops/embedded_kafka/test_broker.py",
    "ops/errors.py": "tests/test_errors.py",
    "ops/health/findings.py": "tests/ops/health/test_rules.py",
    "ops/health/golden_probe.py": "tests/ops/health/test_probes.py",
    "ops/health/kafka_probes.py": "tests/integration/test_health.py",
    "ops/health/kinds.py": "tests/test_docs.py",
    "ops/health/monitor.py": "tests/ops/health/test_probes.py",
    "ops/health/pipeline_rules.py": "tests/ops/health/test_rules.py",
    "ops/health/readings.py": SHAPES,
    "ops/health/serving_rules.py": "tests/ops/health/test_rules.py",
    "ops/health/wiring.py": "tests/ops/health/test_probes.py",
    "ops/platform/driver.py": "tests/e2e/test_platform.py",
    "ops/platform/installation.py": "tests/e2e/test_joined.py",
    "ops/platform/operator_process.py": "tests/e2e/test_platform.py",
    "ops/policy/store.py": "tests/ops/service/test_service.py",
    "ops/problems.py": "tests/ops/config/test_yaml_document.py",
    "ops/processes/ports.py": "tests/ops/embedded_kafka/test_broker.py",
    "ops/releases/routes.py": "tests/ops/releases/test_releases.py",
    "ops/scaling/need.py": "tests/ops/scaling/test_decision.py",
    "ops/service/cost.py": "tests/ops/cli/test_cost.py",
    "ops/service/health.py": "tests/ops/service/test_service.py",
    "ops/service/ledger.py": "tests/ops/service/test_service.py",
    "ops/service/models.py": "tests/ops/service/test_service.py",
    "ops/service/people.py": "tests/ops/service/test_service.py",
    "ops/service/policies.py": "tests/ops/service/test_service.py",
    "ops/service/releases.py": "tests/ops/api/test_releases.py",
    "ops/serving/apps.py": "tests/ops/operator/test_loop.py",
    "ops/serving/nodes.py": "tests/ops/operator/test_upkeep.py",
    "ops/serving/observed_app.py": SHAPES,
    "ops/serving/readiness.py": "tests/ops/releases/test_next_event.py",
    "ops/sql/tables.py": "tests/ops/sql/test_database.py",
    "ops/sql/upsert.py": "tests/ops/cost/test_workloads.py",
    "ops/telemetry/follower.py": "tests/integration/test_health.py",
    "ops/view.py": SHAPES,
}


def test_every_module_has_a_test_file_of_its_name_or_is_listed() -> None:
    without = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        if path.name != "__init__.py"
        and "migrations" not in path.parts
        and not (ROOT / "tests" / path.relative_to(ROOT).with_name(f"test_{path.name}")).exists()
    }
    assert without == ELSEWHERE.keys()


def test_files_that_the_list_names_are_there() -> None:
    named = {place for place in ELSEWHERE.values() if place.startswith("tests/")}
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_test_modules_do_not_import_each_other() -> None:
    """What several need is in a module of its own, whose name does not begin with ``test_``."""

    def is_tests(module: str) -> bool:
        return module.rpartition(".")[2].startswith(("test_", "conftest"))

    imports: list[tuple[Path, str]] = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and is_tests(node.module or ""):
                imports.append((path, node.module or ""))
    assert imports == []

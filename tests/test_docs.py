"""The documents say what the code says: settings, failures, files, targets, the example."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click import Context
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined
from typer.main import get_command

from ops.cli.main import app
from ops.config.duration import written
from ops.config.file import check
from ops.config.prices import NodePrice, PriceTable
from ops.config.scaling import ModelScaling, ScalingSettings
from ops.config.settings import ApiSettings, PlatformConfig, RaySettings
from ops.health import kinds
from ops.policy import file as policy_file
from ops.policy import policy, windows
from serve.contract import FailureKind
from serve.families import REFUSED
from serve.registry import task_type
from serve.settings import EngineSettings, ModelSettings, Settings
from serve.task_names import TASKS
from stream.schema import DeadLetterHeaders, ResultHeaders, input_record
from stream.settings import KafkaSettings, PipelineSettings
from tests.serve.families import OTHERS, REPRESENTATIVE
from tests.source import PRODUCT, ROOT, imported, modules, tree

GUIDES = tuple(sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "DECISIONS.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *GUIDES,
)
MAX_BYTES = {"README.md": 12_000, "ARCHITECTURE.md": 20_000}
PACKAGES = (*PRODUCT, "bench")
SETTINGS: tuple[type[Settings], ...] = (
    PlatformConfig,
    KafkaSettings,
    RaySettings,
    ApiSettings,
    ScalingSettings,
    ModelScaling,
    PriceTable,
    NodePrice,
    ModelSettings,
    EngineSettings,
    PipelineSettings,
    policy.Policy,
    policy.Cadence,
    windows.Windows,
    windows.ReleaseWindow,
    policy.MetricGate,
    policy.GoldenGate,
    policy.ApprovalRule,
    policy.Rollout,
    policy.ShadowStep,
    policy.CanaryStep,
    policy.Bake,
    policy.Analysis,
    policy.ErrorAnalysis,
    policy.LatencyAnalysis,
    policy.LabelAnalysis,
    policy.AgreementAnalysis,
    policy.RetentionPolicy,
    policy.CostLimit,
)
MAX_DECISION_LINES = 15
CODE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JSON = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A slash that begins a path, not one within a path, an address or an alternative.
ABSOLUTE_PATH = re.compile(r"(?<![\w./~:>})`*-])/[a-z][\w.-]*/[\w./-]+")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def guides() -> str:
    return "\n".join(text_of(document) for document in GUIDES)


def spans(text: str) -> list[str]:
    """What stands as code within the sentences."""
    return CODE.findall(FENCED.sub("", text))


def section(text: str, heading: str) -> str:
    """A section of Markdown, without its heading, down to the next of its level or above."""
    level = heading.split(" ")[0]
    assert f"\n{heading}\n" in text, f"add the section {heading}"
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start:], re.MULTILINE)
    return text[start : start + end.start() if end else len(text)]


def rows(markdown: str) -> Iterator[list[str]]:
    """Cells of every table row; headers are left out."""
    lines = markdown.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not following.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def table_of(text: str, marker: str) -> dict[str, str]:
    """Key and default of each row of the table below a marker such as ``settings: ApiSettings``."""
    after = text.split(f"<!-- {marker} -->\n", 1)[1]
    table = re.split(r"\n(?:#|<!-- )", after, maxsplit=1)[0]
    return {cells[0].strip("`"): cells[1].strip("`") for cells in rows(table)}


def defaults_of(settings: type[Settings]) -> dict[str, str]:
    """Key and default of each field, as a table has them."""
    return {name: as_documented(f.default) for name, f in settings.model_fields.items()}


def as_documented(default: object) -> str:
    """A default as the YAML file would say it."""
    match default:
        case _ if default is PydanticUndefined:
            return "required"
        case None:
            return "null"
        case "":
            return '""'
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case timedelta():
            return written(default)
        case tuple():
            return f"[{', '.join(map(as_documented, default))}]"
        case Settings():
            # Of its parts, those that are not defaults themselves.
            parts = default.model_dump(exclude_defaults=True).items()
            return f"{{{', '.join(f'{key}: {as_documented(part)}' for key, part in parts)}}}"
        case _:
            return str(default)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda kind: kind.__name__)
def test_settings_table_has_every_field_with_its_default(settings: type[Settings]) -> None:
    assert table_of(guides(), f"settings: {settings.__name__}") == defaults_of(settings)


def test_there_is_no_other_settings_table() -> None:
    named = re.findall(r"<!-- settings: (\w+) -->", guides())
    assert sorted(named) == sorted(settings.__name__ for settings in SETTINGS)


@pytest.mark.parametrize("task", TASKS)
def test_section_of_a_task_has_its_inputs_parameters_and_head(task: str) -> None:
    kind, text = task_type(task), section(text_of("docs/tasks.md"), f"## {task}")
    assert table_of(text, f"parameters: {task}") == defaults_of(kind.parameters_type)
    assert table_of(text, f"head: {task}") == defaults_of(kind.head_type)
    overview = {cells[0]: cells[1:] for cells in rows(text_of("docs/tasks.md").partition("## ")[0])}
    inputs, _, classes = overview[f"[{task}](#{task})"]
    assert spans(inputs) == [one.name for one in kind.inputs]
    assert inputs.count("optional") == sum(one.optional for one in kind.inputs)
    assert "none" in classes if task == "multi-task" else kind.model_class in spans(classes)


@pytest.mark.parametrize("task", TASKS)
def test_examples_of_a_task_have_the_shapes_of_its_records_and_results(task: str) -> None:
    text = section(text_of("docs/tasks.md"), f"## {task}")
    record, *results = [json.loads(example) for example in JSON.findall(text)]
    inputs = {one.name: one for one in task_type(task).inputs}
    assert record.keys() <= inputs.keys()
    input_record(task).model_validate(record, strict=True)
    named = {*record, *spans(text)}
    assert [name for name in inputs if name not in named] == []
    assert results
    for result in results:
        TypeAdapter(task_type(task).result_type).validate_python(result, strict=True)


def test_there_is_no_section_or_table_of_another_task() -> None:
    text = text_of("docs/tasks.md")
    for marker in ("parameters", "head"):
        named = re.findall(rf"<!-- {marker}: ([\w-]+) -->", guides())
        assert sorted(named) == sorted(TASKS)
    linked = re.findall(r"^\| \[([\w-]+)\]", text, re.MULTILINE)
    assert sorted(linked) == sorted(TASKS)


def test_bad_input_table_names_every_kind_of_failure() -> None:
    faults = text_of("docs/faults.md").partition("## ")[0]
    kinds = [cells[0].strip("`") for cells in rows(faults) if cells[0].startswith("`")]
    assert sorted(kinds) == sorted(FailureKind)


def test_findings_of_health_are_documented() -> None:
    text = section(text_of("docs/faults.md"), "## What `bertstream health` finds")
    written = [line for line in text.splitlines() if line.startswith("|")]
    assert written == list(kinds.table()), "`python -m ops.health.kinds` prints the table"


def commands(group: Any, *names: str) -> Iterator[tuple[str, str]]:
    """Every command with its help, on one line."""
    for name in group.list_commands(Context(group)):
        command = group.get_command(Context(group), name)
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield " ".join((*names, name)), " ".join((command.help or "").split())


def test_every_command_is_documented() -> None:
    text = text_of("docs/commands.md")
    described = {
        name.split(" [")[0].strip()
        for cells in rows(text.partition("## ")[0])
        for name in re.findall(r"`([a-z -]+)", cells[0])
    }
    listed = {cells[0].strip("`"): cells[1] for cells in rows(text.partition("## ")[2])}
    helps = dict(commands(get_command(app)))
    assert listed == {name: helps[name] for name in helps if name not in described}
    assert described - helps.keys() == {"cost --advice"}


def test_headers_of_records_are_documented() -> None:
    text = text_of("docs/records.md")
    named = set(re.findall(r"`(bertstream[-.][a-z.-]+)`", text))
    parts = re.findall(r"`(\.[a-z-]+)`", text)
    headers = [
        str(field.alias)
        for kind in (ResultHeaders, DeadLetterHeaders)
        for field in kind.model_fields.values()
    ]
    known = named | {f"bertstream.errors{part}" for part in parts}
    assert [header for header in headers if header not in known] == []


def test_what_is_wrong_is_found_by_its_kind() -> None:
    """No other module makes findings, but for what is fine and for those that were stored."""
    by_hand = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
    }
    assert by_hand == {f"ops/health/{name}.py" for name in ("kinds", "findings", "restarts")}


def test_table_of_packages_is_complete_and_says_what_they_say() -> None:
    table = {
        cells[0].strip("`"): cells[1]
        for cells in rows(section(text_of("ARCHITECTURE.md"), "## Packages"))
    }
    docstrings = {
        path.parent.relative_to(ROOT).as_posix(): " ".join(
            (ast.get_docstring(tree(path)) or "").partition("\n\n")[0].replace("``", "`").split()
        )
        for package in PACKAGES
        if package != "bench"
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert table == docstrings


def test_files_that_documents_name_exist() -> None:
    known = "|".join((*PACKAGES, "tests", "infra"))
    path = re.compile(rf"(?:{known})/[\w./-]*")
    missing = [
        f"{document}: {name}"
        for document in DOCUMENTS
        for name in spans(text_of(document))
        if path.fullmatch(name) and not (ROOT / name).exists()
    ]
    assert missing == []


def test_libraries_are_imported_at_their_doors_only() -> None:
    doors = section(text_of("ARCHITECTURE.md"), "## Who may import whom")
    table = {cells[0].strip("`"): set(spans(cells[1])) for cells in rows(doors)}
    assert set(table) >= {"ray", "kafka", "openvino"}
    found: dict[str, set[str]] = {library: set() for library in table}
    for package in ("serve", "stream", "train", "ops"):
        for file in (ROOT / package).rglob("*.py"):
            for library in imported(file) & table.keys():
                found[library].add(file.relative_to(ROOT).as_posix())
    assert found == table


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), re.MULTILINE))
    text = text_of(document)
    code = "\n".join([*spans(text), *FENCED.findall(text)])
    named = set(re.findall(r"\bmake ([a-z-]+)", code))
    assert named <= targets


def test_readme_names_the_two_commands() -> None:
    first_steps = section(text_of("README.md"), "## Two commands")
    commands = [line.split("#")[0].strip() for line in FENCED.findall(first_steps)[0].splitlines()]
    assert commands == ["make demo", "make test"]


def test_example_configuration_is_valid() -> None:
    assert check(ROOT / "infra" / "bertstream.example.yaml") == []


def test_example_policy_is_valid() -> None:
    text = text_of("infra/policy.example.yaml")
    assert policy_file.check(text, now=datetime(2026, 11, 21, tzinfo=UTC)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_no_place_of_one_machine(document: str) -> None:
    # Where a reader puts a path of their own it says so.
    text = text_of(document).replace("/path/to/", "")
    assert ABSOLUTE_PATH.findall(text) == []


def test_decisions_are_numbered_and_short() -> None:
    headings = re.findall(r"^## (\d+)\. .+$", text_of("DECISIONS.md"), re.MULTILINE)
    assert headings == [str(number + 1) for number in range(len(headings))]
    for part in text_of("DECISIONS.md").split("\n## ")[1:]:
        assert len(part.strip().splitlines()) <= MAX_DECISION_LINES, part.splitlines()[0]


@pytest.mark.parametrize(("document", "limit"), MAX_BYTES.items())
def test_documents_stay_short(document: str, limit: int) -> None:
    assert len(text_of(document).encode()) <= limit


def test_readme_names_every_guide() -> None:
    readme = text_of("README.md")
    assert set(re.findall(r"\]\(([^)]+)\)", readme)) >= set(GUIDES)


def test_links_between_documents_lead_somewhere() -> None:
    missing = [
        f"{document}: {link}"
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)#]+)\)", text_of(document))
        if "://" not in link and not (ROOT / document).parent.joinpath(link).exists()
    ]
    assert missing == []


def test_families_that_the_guide_lists_are_those_of_the_code_and_of_the_tests() -> None:
    lines = text_of("docs/models.md").splitlines()
    begin = lines.index("| answers | families |") + 2
    rows = [line.strip("| ").split(" | ") for line in lines[begin : lines.index("", begin)]]
    told = {words: families.split(", ") for words, families in rows}
    refused = [name for words, names in told.items() if "refused" in words for name in names]
    assert sorted(refused) == sorted(REFUSED)
    named = [name for names in told.values() for name in names]
    assert len(named) == len(set(named))
    for family, engine in (REPRESENTATIVE | OTHERS).items():
        words = {"openvino": "OpenVINO and torch", "torch": "torch only"}[engine]
        assert any(family in names for row, names in told.items() if row.startswith(words)), family

"""The policy's YAML: every mistake with its place and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ops.errors import PolicyError
from ops.policy.file import check, load
from ops.problems import ProblemSeverity

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODEL = "model: sentiment\n"
FAR_TOO_DEEP = "[" * 5000


def only(text: str) -> tuple[int, str, str]:
    """Line, path and message of the one mistake there is."""
    (problem,) = check(text, now=NOW)
    assert problem.severity == ProblemSeverity.ERROR
    return problem.line, problem.path, problem.message


def test_every_mistake_is_told_at_once_with_line_and_column() -> None:
    text = """\
model: Sentiment
cadence: {min_intervall: 24h}
windows:
  allow:
    - {cron: "0 9 * * 1-5", duration: 8, time_zone: Europe/Berln}
gates:
  - {metric: accuracy, direction: higher, at_most: 0.9}
  - {metric: f1, direction: up}
approvals: [{team: risk, count: 0}]
rollout:
  canary: [{weight: 0.5}, {weight: 0.25}, {weight: 1}]
analysis: {errors: null, latency: null, labels: null}
labels: sam
"""
    problems = check(text, now=NOW)
    assert [(p.line, p.column, p.path) for p in problems] == [
        (1, 1, "model"),
        (2, 11, "cadence.min_intervall"),
        (5, 29, "windows.allow.0.duration"),
        (5, 42, "windows.allow.0.time_zone"),
        (7, 43, "gates.0.at_most"),
        (8, 18, "gates.1.direction"),
        (9, 26, "approvals.0.count"),
        (11, 28, "rollout.canary.1.weight"),
        (11, 44, "rollout.canary.2.weight"),
        (12, 1, "analysis"),
        (13, 1, "labels"),
    ]
    with pytest.raises(PolicyError) as told:
        load(text, now=NOW)
    assert all(str(problem) in str(told.value) for problem in problems)


WINDOW = "{cron: 0 9 * * *, duration: 1h}"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("cadenc: {}", "cadenc", "did you mean cadence?"),
        ("rollout: {bake: {time_out: 1h}}", "rollout.bake.time_out", "did you mean timeout?"),
        ("rollout: {bake: {duration: 600}}", "rollout.bake.duration", "such as 600s, 600m"),
        ("rollout: {bake: {timeout: 0s}}", "rollout.bake.timeout", "longer than 0s"),
        ("rollout: {shadow: {timeout: 999999d}}", "rollout.shadow.timeout", "at most 366d"),
        ("approvals: [{team: a}, {team: a}]", "approvals.1.team", "merge the two"),
        ("approvals: [{team: 5}]", "approvals.0.team", 'write "5" in quotes'),
        ("approvals: [{team: a, count: yes}]", "approvals.0.count", "must be a number"),
        ("cost: {ceiling_per_day: .inf}", "cost.ceiling_per_day", "finite number"),
        ("golden: {exact: 1}", "golden.exact", "boolean"),
        ("1: {}", "1", "unknown key 1"),
        ("no: {}", "no", "unknown key no"),
        ("cost: {~: 1}", "cost.~", "unknown key ~"),
        (f"retention: {{versions: 0x{'f' * 5000}}}", "retention.versions", "far too large"),
        (f"approvals: [{{team: 0x{'f' * 5000}}}]", "approvals.0.team", "far too large"),
        (f"windows: {{deny: [{', '.join([WINDOW] * 21)}]}}", "windows.deny", "at most 20 items"),
        ("labels: same\nlabels: same", "labels", "2 times"),
    ],
)
def test_one_mistake(text: str, path: str, message: str) -> None:
    line, found, told = only(MODEL + text)
    assert (line, found, message in told) == (2 + text.count("\n"), path, True), told


@pytest.mark.parametrize(
    ("gate", "path", "message"),
    [
        ("metric: accuracy, direction: higher", "gates.0", "needs at_least or not_worse_by"),
        ("metric: loss, direction: lower", "gates.0", "needs at_most or not_worse_by"),
        ("metric: loss, direction: lower, at_least: 1", "gates.0.at_least", "the bound is at_most"),
        ("metric: f1, at_least: 1", "gates.0.direction", "direction is missing"),
        ("metric: f1, direction: higher, at_least: .nan", "gates.0.at_least", "finite"),
    ],
)
def test_gate_that_is_none(gate: str, path: str, message: str) -> None:
    line, found, told = only(f"{MODEL}gates:\n  - {{{gate}}}")
    assert (line, found, message in told) == (3, path, True), told


def test_two_gates_on_one_figure() -> None:
    gate = "{metric: accuracy, slice: short, direction: higher, at_least: 0.5}"
    same = "{metric: accuracy/short, direction: higher, at_least: 0.6}"
    assert only(f"{MODEL}gates:\n- {gate}\n- {same}")[:2] == (4, "gates.1")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("rollout: {canary: [], bake: null}", "rollout"),
        ("rollout: {canary: [{weight: 0.1, records: 0}], bake: {records: 0}}", "rollout"),
        ("rollout: {canary: [], bake: {records: 0}}", "rollout"),
        ("analysis: {errors: null, labels: null, latency: null}", "analysis"),
        ("analysis: {errors: null, labels: null, latency: {max_ratio: null}}", "analysis"),
    ],
)
def test_policy_that_could_never_roll_back_is_refused(text: str, path: str) -> None:
    errors = [p for p in check(MODEL + text, now=NOW) if p.severity == ProblemSeverity.ERROR]
    assert [problem.path for problem in errors] == [path]
    assert "never be rolled back" in errors[0].message


@pytest.mark.parametrize("canary", ["[{weight: 0.1}]", "[]"])
@pytest.mark.parametrize("check_left", ["errors", "latency", "labels"])
def test_one_step_and_one_check_are_enough(canary: str, check_left: str) -> None:
    off = ", ".join(f"{c}: null" for c in ("errors", "latency", "labels") if c != check_left)
    steps = f"rollout: {{canary: {canary}{', bake: null' if canary != '[]' else ''}}}"
    assert check(f"{MODEL}{steps}\nanalysis: {{{off}}}", now=NOW) == []


@pytest.mark.parametrize("weight", ["0", "1", "1.5", "-0.1"])
def test_weight_of_a_canary_is_a_share(weight: str) -> None:
    _, path, message = only(f"{MODEL}rollout: {{canary: [{{weight: {weight}}}]}}")
    assert path == "rollout.canary.0.weight"
    assert "between 0 and 1" in message


@pytest.mark.parametrize(
    ("window", "path", "message"),
    [
        ('cron: "0 9 * *", duration: 8h', "cron", "five fields"),
        ('cron: "0 9 * * * *", duration: 8h', "cron", "five fields"),
        ('cron: "0 25 * * *", duration: 8h', "cron", "five fields"),
        ('cron: "R * * * *", duration: 8h', "cron", "five fields"),
        ('cron: "@daily", duration: 8h', "cron", "five fields"),
        ('cron: "0 9 30 2 *", duration: 8h', "cron", "would never open"),
        ('cron: "0 9 * * *", duration: 0s', "duration", "longer than 0s"),
        ('cron: "0 9 * * *", duration: 1h, time_zone: Berlin', "time_zone", "Europe/Berlin?"),
        ('cron: "0 9 * * *", duration: 1h, time_zone: new york', "time_zone", "America/New_York?"),
        (
            'cron: "0 9 * * *", duration: 1h, time_zone: ../x',
            "time_zone",
            "there is no time zone '../x'",
        ),
    ],
)
def test_window_that_is_none(window: str, path: str, message: str) -> None:
    line, found, told = only(f"{MODEL}windows:\n  allow:\n  - {{{window}}}")
    assert (line, found, message in told) == (4, f"windows.allow.0.{path}", True), told


def test_windows_open_so_often_at_most_that_years_can_be_looked_at() -> None:
    often = '{cron: "*/20 * * * *", duration: 1m}'
    line, path, told = only(f"{MODEL}windows:\n  deny: [{often}, {often}, {WINDOW}]")
    assert (line, path) == (3, "windows.deny")
    assert told == (
        "they open 145 times a day, but at most 144 are allowed: make them less frequent or longer"
    )
    touching = '{cron: "*/2 0-22 * * *", duration: 2m}'
    text = f"{MODEL}windows: {{allow: [{touching}], deny: [{often}, {often}]}}"
    assert check(text, now=NOW) == []


@pytest.mark.parametrize(
    "windows",
    [
        '{deny: [{cron: "* * * * *", duration: 60s}]}',
        '{deny: [{cron: "0 0 * * 0", duration: 7d}]}',
        '{allow: [{cron: "0 9 * * 1", duration: 2h}], deny: [{cron: "0 8 * * *", duration: 4h}]}',
    ],
)
def test_windows_that_forbid_everything_are_refused(windows: str) -> None:
    _, path, message = only(f"{MODEL}windows: {windows}")
    assert path == "windows.deny"
    assert "no release could start within two years" in message


def test_rare_window_is_no_mistake() -> None:
    text = f'{MODEL}windows: {{allow: [{{cron: "0 9 24 12 4", duration: 8h}}]}}'
    assert check(text, now=NOW) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("rollout: {bake: {duration: 2h, timeout: 1h}}", "rollout.bake.timeout"),
        ("rollout: {shadow: {records: 1000000, timeout: 1s}}", "rollout.shadow.timeout"),
        ("rollout: {canary: [{weight: 0.1, records: 0}]}", "rollout.canary.0.records"),
        ("analysis: {latency: {max_ratio: null}}", "analysis.latency"),
    ],
)
def test_warning_is_told_and_the_policy_used(text: str, path: str) -> None:
    (problem,) = check(MODEL + text, now=NOW)
    assert (problem.path, problem.severity) == (path, ProblemSeverity.WARNING)
    assert "warning: " in str(problem)
    assert load(MODEL + text, now=NOW).model == "sentiment"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold keys"),
        ("- 1", "must hold keys"),
        ("a: [", "not YAML"),
        ("a: 2026-13-45", "cannot be parsed"),
        ("a: !!timestamp 99", "cannot be parsed"),
        ("a: !!bool x", "cannot be parsed"),
        ('a: !!int ""', "cannot be parsed"),
        ("a: &a [*a]", "no aliases"),
        (FAR_TOO_DEEP, "nested too deeply"),
        ("#" * 70_000, "at most 65,536 bytes"),
        ("{}", "model is missing"),
    ],
)
def test_what_is_no_policy_at_all(text: str, message: str) -> None:
    assert message in only(text)[2]


KEYS = (
    *("model", "windows", "allow", "cron", "duration", "gates", "metric", "rollout", "canary"),
    *("weight", "bake", "analysis", "errors", "approvals", "team", 1, None),
)


def containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["same", "8h"]),
        containers,
        max_leaves=12,
    )
)
def test_nothing_that_is_written_breaks_the_check(content: object) -> None:
    problems = check(yaml.safe_dump(content), now=NOW)
    assert all(problem.message for problem in problems)

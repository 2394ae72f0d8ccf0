from __future__ import annotations

from ops.serving.observed_app import cause_of, fault_of

FAILED = "Failed to update the deployments ['Model']."
# As Ray Serve puts it.
RETRYING = """A replica failed to start with exception. Retrying 2 more time(s). Error:
Traceback (most recent call last):
  File "python/ray/_raylet.pyx", line 1, in ray._raylet.execute_task
  File "serve/module.py", line 127, in load_pretrained
    raise ArtifactError(f"{path}: transformers cannot load it: {exc}") from exc
serve.errors.ArtifactError: models/m: transformers cannot load it: 7 heads do not fit
"""
LIBRARY = """The deployment failed to start 3 times in a row. See controller logs. Error:
Traceback (most recent call last):
  File "x.py", line 1, in f
RuntimeError: out of memory"""


def test_cause_is_the_end_of_the_traceback_and_ours_a_sentence() -> None:
    wanted = "models/m: transformers cannot load it: 7 heads do not fit"
    assert cause_of([FAILED, RETRYING]) == wanted
    assert cause_of([FAILED, LIBRARY]) == "RuntimeError: out of memory"


def test_without_a_traceback_the_first_message_counts() -> None:
    assert cause_of(["", " Deploying. ", "Waiting for replicas to be placed."]) == "Deploying."
    assert cause_of([FAILED]) == FAILED
    assert cause_of(["", ""]) == cause_of([]) == ""


def test_fault_of_an_app_is_looked_for_in_its_deployments() -> None:
    app = {"message": FAILED, "deployments": {"Model": {"message": LIBRARY}, "Other": {}}}
    assert fault_of(app) == "RuntimeError: out of memory"
    assert fault_of({"deployments": {}}) == ""

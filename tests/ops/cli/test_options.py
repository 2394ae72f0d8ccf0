from __future__ import annotations

from typing import Any

import pytest

from ops.cli.options import parsed_settings
from ops.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["top_k=3", "prompt=query: "], {"top_k": 3, "prompt": "query: "}),
        (["top_k=null", "normalize=true"], {"top_k": None, "normalize": True}),
        (['thresholds={"a": 0.5}', "equation=a=b"], {"thresholds": {"a": 0.5}, "equation": "a=b"}),
        (["prompt="], {"prompt": ""}),
    ],
)
def test_value_of_a_setting_is_json_or_else_a_string(
    given: list[str], found: dict[str, Any]
) -> None:
    assert parsed_settings(given) == found


@pytest.mark.parametrize("setting", ["top_k", "=3", ""])
def test_setting_without_name_or_value_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="must be NAME=VALUE"):
        parsed_settings([setting])

"""Run the benchmarks of ``ops``: simulated verdicts, a large catalogue and ledger, the operator.

``python -m bench.ops [--quick]`` runs ``bench.verdicts``, ``bench.registry``, ``bench.commands``
and ``bench.operator`` one after the other. It prints one line of JSON with all metrics and exits
with 1 if one of them was too slow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

DEADLINE_S = 900
QUICK = {
    "verdicts": ["--quick"],
    "registry": ["--versions", "1000", "--ledger", "20000"],
    "commands": ["--versions", "1000", "--ledger", "20000"],
    "operator": ["--models", "20", "--rounds", "10", "--calls", "50"],
}


def main() -> int:
    """Run all benchmarks; return the highest exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.ops", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run shorter, with rough metrics")
    quick = parser.parse_args().quick
    ended = {name: _run(name, options if quick else []) for name, options in QUICK.items()}
    print(json.dumps({name: figures for name, (_, figures) in ended.items()}))
    return max(code for code, _ in ended.values())


def _run(name: str, options: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *options],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
    )
    lines = done.stdout.strip().splitlines()
    figures: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return done.returncode, figures


if __name__ == "__main__":
    sys.exit(main())

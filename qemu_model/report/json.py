# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for programs.

One object: ``version`` (1), ``exit`` (the exit code) and ``results``, a list with one
object for each scenario and mode; its keys are those of ``report.result.Result`` plus
``verdict``, and ``divergences`` holds the fields of ``checkers.finding.Divergence``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from qemu_model.errors import UsageError
from qemu_model.report.result import Result, exit_code

VERSION = 1


def document(results: Sequence[Result]) -> dict[str, object]:
    """The report as plain data."""
    return {
        "version": VERSION,
        "exit": int(exit_code(results)),
        "results": [asdict(result) | {"verdict": result.verdict} for result in results],
    }


def write(path: Path, results: Sequence[Result]) -> None:
    """Write the report; UsageError when the file cannot be written."""
    try:
        path.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json {path}: {error.strerror}") from error

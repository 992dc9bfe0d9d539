# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for programs.

One object: ``version`` (1), ``complete`` (false while or because the command did not get to
its end), ``exit`` (the exit code) and ``results``, a list with one
object for each scenario and mode; its keys are those of ``report.result.Result`` plus
``verdict``, and ``divergences`` holds the fields of ``checkers.finding.Divergence``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from qemu_model.errors import UsageError
from qemu_model.report.result import Result

VERSION = 1


def document(results: Sequence[Result], code: int, complete: bool = True) -> dict[str, object]:
    """The report as plain data."""
    return {
        "version": VERSION,
        "complete": complete,
        "exit": code,
        "results": [plain(result) for result in results],
    }


def plain(result: Result) -> dict[str, object]:
    """One result as plain data."""
    return asdict(result) | {"verdict": result.verdict}


def write(path: Path, results: Sequence[Result], code: int, complete: bool = True) -> None:
    """Write the report, all of it or nothing; UsageError when the file cannot be written."""
    put(path, document(results, code, complete))


def put(path: Path, report: dict[str, object]) -> None:
    """Write any report in the same way."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"--json {path}: {error.strerror}") from error

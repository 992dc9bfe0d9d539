# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a hunt for seeded bugs: a table and a score for people, JSON for programs.

The JSON is one object: ``version`` (1), ``complete``, ``exit``, ``bugs`` (for each:
``name``, ``wrong``, ``found``, ``scenario``, ``mode``, ``choices``, ``checker``,
``finding``, ``command`` and ``directory`` of the run that found it, ``seconds``, ``runs``
with all of them) and
``control``, the same scenarios without a bug; runs are as in ``report.json``.
"""

from collections.abc import Sequence
from pathlib import Path

from qemu_model.hunt import Hunt
from qemu_model.report.json import VERSION, plain, put
from qemu_model.report.result import Result
from qemu_model.report.text import columns, printable


def line(hunt: Hunt) -> str:
    """One line for a bug that has just been found, or not."""
    return printable(f"{hunt.bug.name}: {_found_by(hunt) or 'NOT FOUND'} {hunt.seconds:.1f}s")


def table(hunts: Sequence[Hunt]) -> str:
    """The table at the end; seconds are those of all runs until it was found."""
    rows = [("bug", "found by", "seconds", "finding")]
    for hunt in hunts:
        finding = hunt.finding
        said = hunt.bug.wrong if finding is None else finding.summary
        rows.append((hunt.bug.name, _found_by(hunt) or "NOTHING", f"{hunt.seconds:.1f}", said))
    return printable(columns(rows, right={2}))


def score(hunts: Sequence[Hunt], controls: Sequence[Result]) -> str:
    """The last lines: how many were found, and what was found where there is none."""
    found = sum(hunt.found is not None for hunt in hunts)
    agree = sum(result.verdict == "agree" for result in controls)
    return (
        f"{found} of {len(hunts)} bugs found; "
        f"without a bug {agree} of the {len(controls)} scenarios that found them agree"
    )


def _found_by(hunt: Hunt) -> str:
    found, finding = hunt.found, hunt.finding
    if found is None or finding is None:
        return ""
    words = (found.scenario, finding.checker, found.mode, hunt.attempt.choices)
    return ", ".join(word for word in words if word)


def _hunt(hunt: Hunt) -> dict[str, object]:
    found, finding = hunt.found, hunt.finding
    return {
        "name": hunt.bug.name,
        "wrong": hunt.bug.wrong,
        "found": found is not None,
        "scenario": found.scenario if found else None,
        "mode": found.mode if found else None,
        "choices": hunt.attempt.choices if found else None,
        "checker": finding.checker if finding else None,
        "finding": finding.summary if finding else None,
        "command": found.command if found else None,
        "directory": found.directory if found else None,
        "seconds": hunt.seconds,
        "runs": [plain(run) for run in hunt.runs],
    }


def write(
    path: Path, hunts: Sequence[Hunt], controls: Sequence[Result], code: int, complete: bool = True
) -> None:
    """Write the report, all of it or nothing; UsageError when the file cannot be written."""
    document = {
        "version": VERSION,
        "complete": complete,
        "exit": code,
        "bugs": [_hunt(hunt) for hunt in hunts],
        "control": [plain(result) for result in controls],
    }
    put(path, document)

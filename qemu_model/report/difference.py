# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of two runs that were compared, to paste into a mail."""

from pathlib import Path

from qemu_model.checkers.difference import Difference
from qemu_model.checkers.equivalence import Comparison
from qemu_model.checkers.judge import Verdict
from qemu_model.report.text import printable
from qemu_model.run import Run


def block(
    comparison: Comparison,
    reference: tuple[Path, Run, Verdict],
    other: tuple[Path, Run, Verdict],
) -> str:
    """All that there is to say about two runs; each comes with its directory and verdict."""
    about = other[1].about
    found = comparison.difference
    lines = [f"{'DIFFER' if found else 'equivalent'}: two runs of {about.scenario}"]
    for name, (directory, run, verdict) in (("reference", reference), ("other", other)):
        count = len(verdict.divergences)
        judged = f"{count} divergence{'s' * (count > 1)}" if count else "agrees"
        lines += [
            f"  {name + ':':<11}{directory}: mode {run.about.mode}, {run.about.kernel}, {judged}",
            f"  {'':<11}{run.about.command}",
        ]
    lines.append(
        f"  compared:  {comparison.exact} stretches of the program in their order, "
        f"{comparison.sets} as sets, {comparison.entries} entries of the reference"
    )
    if comparison.until is not None:
        lines.append(
            f"  not compared: line {comparison.until} and what follows: an interrupt showed a late "
            "HDBSSPROD_EL2.FSC earlier in one of the runs"
        )
    if found:
        lines += [f"  {text}" for text in _difference(found, other[1])]
    return printable("\n".join(lines))


def _difference(found: Difference, run: Run) -> list[str]:
    lines = [
        f"[{found.what}] line {found.line}: {run.line(found.line)}",
        f"    rule:      {found.rule}",
        f"    reference: {found.reference}",
        f"    other:     {found.other}",
    ]
    for name, records in (
        ("reference", found.reference_records),
        ("other", found.other_records),
    ):
        if records:
            lines.append(f"    records around it in {name}:")
            lines += [f"      {record}" for record in records]
    return lines

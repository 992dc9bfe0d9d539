# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for people: a table, and a block to paste into a mail for each finding."""

from collections.abc import Collection, Sequence

from qemu_model.checkers.finding import Divergence
from qemu_model.report.result import Result

_FIGURES = ("pages", "entries", "refusals", "lost", "late", "spurious")
_SHOWN = 4
"""Findings of one checker that are printed in full."""


def line(result: Result) -> str:
    """One line for a scenario that has just finished."""
    reason = result.error or result.skipped
    text = f"{result.scenario} [{result.mode}] {result.verdict} {result.seconds:.1f}s"
    return printable(f"{text}: {reason.splitlines()[0]}" if reason else text)


def table(results: Sequence[Result]) -> str:
    """The table at the end; numbers count 4 KB pages, HDBSS entries and refused accesses."""
    head = ("scenario", "mode", *_FIGURES, "verdict", "seconds")
    rows: list[tuple[str, ...]] = [head]
    for result in results:
        numbers = [
            str(result.figures[name]) if name in result.figures else "-" for name in _FIGURES
        ]
        rows.append(
            (result.scenario, result.mode, *numbers, result.verdict, f"{result.seconds:.1f}")
        )
    return printable(columns(rows, {head.index(name) for name in (*_FIGURES, "seconds")}))


def columns(rows: Sequence[tuple[str, ...]], right: Collection[int]) -> str:
    """Rows of cells, each column as wide as it has to be, those in ``right`` to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def printable(text: str) -> str:
    """The text without what a hostile kernel could do to a terminal or a mail."""
    return "".join(c if c.isprintable() else "\n" if c == "\n" else "?" for c in text)


def block(result: Result) -> str:
    """Everything that a reader of a mail needs about one scenario that did not agree."""
    lines = [f"{result.verdict}: {result.scenario}, mode {result.mode}, seed {result.seed}"]
    if result.kernel:
        lines.append(f"  kernel:     {result.kernel}")
    lines.append(f"  reproduce:  {result.command}")
    if result.directory:
        lines.append(f"  run:        {result.directory} (hdbss check {result.directory})")
    if result.error is not None:
        lines += [f"  {text}" for text in result.error.splitlines()]
    shown: dict[str, int] = {}
    for divergence in result.divergences:
        shown[divergence.checker] = shown.get(divergence.checker, 0) + 1
        if shown[divergence.checker] <= _SHOWN:
            lines += [f"  {text}" for text in _divergence(divergence)]
    lines += [
        f"  {checker}: {count - _SHOWN} more findings not shown"
        for checker, count in shown.items()
        if count > _SHOWN
    ]
    lines += [f"  not checked: {name}: {why}" for name, why in result.unchecked.items()]
    return printable("\n".join(lines))


def _divergence(divergence: Divergence) -> list[str]:
    where = ", ".join(
        f"{name} {value}"
        for name, value in (
            ("slot", divergence.slot),
            ("page", divergence.page),
            ("round", divergence.round),
        )
        if value is not None
    )
    lines = [f"[{divergence.checker}] {divergence.summary}"]
    if where:
        lines.append(f"    where:    {where}")
    lines += [
        f"    rule:     {divergence.rule}",
        f"    required: {divergence.required}",
        f"    seen:     {divergence.seen}",
    ]
    if divergence.records:
        lines.append("    records:")
        lines += [f"      {record}" for record in divergence.records]
    return lines


def summary(results: Sequence[Result]) -> str:
    """The last line: how many of each verdict."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    parts = [f"{count} {verdict}" for verdict, count in sorted(counts.items())]
    return f"{len(results)} scenario{'s' * (len(results) != 1)}: {', '.join(parts)}"


def reasons(results: Sequence[Result]) -> list[str]:
    """Why scenarios were skipped, and what could not be asked of those that agree.

    A line each, and one for all scenarios with the same reason; the others have a block that
    says it.
    """
    lines = [f"skipped {r.scenario}: {r.skipped}" for r in results if r.skipped is not None]
    unasked: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for result in results:
        if result.verdict != "agree":
            continue
        for why in dict.fromkeys(result.unchecked.values()):
            names = tuple(name for name, said in result.unchecked.items() if said == why)
            unasked.setdefault((why, names), []).append(result.scenario)
    for (why, names), where in unasked.items():
        scenarios = where[0] if len(where) == 1 else f"{len(where)} scenarios"
        lines.append(f"not checked: {', '.join(names)} in {scenarios}: {why}")
    return [printable(line) for line in lines]

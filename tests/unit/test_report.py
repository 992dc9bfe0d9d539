# SPDX-License-Identifier: GPL-2.0-or-later
"""The report, for people and for programs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.checkers.finding import Divergence
from qemu_model.errors import UsageError
from qemu_model.report import json as json_report
from qemu_model.report import text
from qemu_model.report.result import Exit, Result, exit_code

AGREE = Result(
    "bitmap.stride", "parallel", 1, 2.345, "hdbss run bitmap.stride --seed 1",
    figures={"pages": 10, "entries": 8, "refusals": 0, "lost": 0, "late": 1, "spurious": 2},
)  # fmt: skip
LOST = Divergence(
    "lost", "page 9 changed", "I1", "the page in a read", "its bit was 0",
    slot=0, page=9, round=2, records=("#5 PE 0 APPEND",),
)  # fmt: skip
DIVERGE = replace(
    AGREE, scenario="flush.put", divergences=(LOST,), directory="/x/run", kernel="6.12 + series"
)
ERROR = replace(AGREE, scenario="smp.move", figures={}, error="kernel panic: x\nlast line")
SKIPPED = replace(AGREE, scenario="uapi.nvhe", figures={}, skipped="no capability")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([AGREE, SKIPPED], Exit.AGREE),
        ([AGREE, ERROR], Exit.INFRASTRUCTURE),
        ([ERROR, DIVERGE], Exit.DIVERGENCE),
        ([SKIPPED], Exit.UNSUPPORTED),
        ([ERROR, replace(ERROR, bug=True)], Exit.BUG),
        ([], Exit.AGREE),
    ],
)
def test_exit_codes(results: list[Result], code: Exit) -> None:
    assert exit_code(results) == code


def test_the_table_has_a_row_for_each_result_in_columns() -> None:
    rows = text.table([AGREE, DIVERGE, ERROR]).split("\n")
    assert rows[0].split() == [
        "scenario", "mode", "pages", "entries", "refusals", "lost", "late", "spurious",
        "verdict", "seconds",
    ]  # fmt: skip
    assert rows[1].split() == [
        "bitmap.stride", "parallel", "10", "8", "0", "0", "1", "2", "agree", "2.3",
    ]  # fmt: skip
    assert rows[3].split()[2:8] == ["-"] * 6
    assert len({len(row) for row in rows}) == 1


def test_a_block_says_everything_that_a_mail_needs() -> None:
    block = text.block(DIVERGE)
    for words in (
        "DIVERGE: flush.put, mode parallel, seed 1", "6.12 + series", "hdbss run bitmap.stride",
        "hdbss check /x/run", "[lost] page 9 changed", "slot 0, page 9, round 2", "I1",
        "required: the page in a read", "seen:     its bit was 0", "#5 PE 0 APPEND",
    ):  # fmt: skip
        assert words in block
    assert "kernel panic" in text.block(ERROR) and "last line" in text.block(ERROR)


def test_nothing_of_the_kernels_reaches_the_terminal_unseen() -> None:
    hostile = replace(LOST, records=("\x1b[2J\x07 line\r", "\x9b31m"), seen="a\x1b]0;b\x07")
    block = text.block(replace(DIVERGE, divergences=(hostile,)))
    assert "?[2J? line?" in block
    assert all(c.isprintable() or c == "\n" for c in block)
    assert text.line(replace(ERROR, error="\x1b[2J")).endswith(": ?[2J")


def test_many_findings_are_counted_instead_of_printed() -> None:
    block = text.block(replace(DIVERGE, divergences=(LOST,) * 7))
    assert block.count("[lost]") == 4 and "3 more findings" in block


def test_lines_while_it_runs_and_at_the_end() -> None:
    assert text.line(AGREE) == "bitmap.stride [parallel] agree 2.3s"
    assert text.line(ERROR).endswith("error 2.3s: kernel panic: x")
    assert text.summary([AGREE, AGREE, ERROR]) == "3 scenarios: 2 agree, 1 error"
    assert text.reasons([AGREE, SKIPPED]) == ["skipped uapi.nvhe: no capability"]


def test_what_could_not_be_asked_of_a_run_that_agrees_is_said() -> None:
    blind = replace(AGREE, unchecked={"flushed": "no vmlinux", "srcu": "no vmlinux"})
    other = replace(blind, unchecked={"flushed": "no vmlinux", "mirror": "no trace"})
    told = replace(DIVERGE, unchecked={"buffer": "its block says it"})
    assert text.reasons([blind, replace(blind, scenario="b"), other, told]) == [
        "not checked: flushed, srcu in 2 scenarios: no vmlinux",
        "not checked: flushed in bitmap.stride: no vmlinux",
        "not checked: mirror in bitmap.stride: no trace",
    ]


def test_a_foreign_run_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in text.table([replace(AGREE, scenario="\x1b[2J")])


def test_json_holds_the_same(tmp_path: Path) -> None:
    json_report.write(tmp_path / "report", [AGREE, DIVERGE], 1)
    document = json.loads((tmp_path / "report").read_text())
    assert (document["version"], document["exit"], document["complete"]) == (1, 1, True)
    assert [result["verdict"] for result in document["results"]] == ["agree", "DIVERGE"]
    assert document["results"][1]["divergences"][0]["page"] == 9


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--json"):
        json_report.write(tmp_path / "none" / "report", [], 0)

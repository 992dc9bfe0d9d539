# SPDX-License-Identifier: GPL-2.0-or-later
"""Bare-metal programs at EL2 see FEAT_HDBSS; the trace agrees with the reference model."""

import struct
from collections import Counter
from pathlib import Path

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.checkers.mirror import check_trace
from qemu_model.ktap import Outcome
from qemu_model.machine.command import Mode
from qemu_model.trace import Anomaly, Kind
from tests.plugin.conftest import BareRun, Bench

MODES = (Mode.PARALLEL, Mode.DETERMINISTIC)
FLASH_BYTES = 64 << 20


def agrees(run: BareRun) -> None:
    """The program came to its end, all its tests passed, and the trace is right."""
    assert run.report.complete, run.stderr
    assert run.failed == []
    assert run.code == 0
    assert run.trace.end == 0
    assert check_trace(run.trace) == []


def anomalies(run: BareRun) -> Counter[int]:
    return Counter(record[4] for record in run.trace if record[1] == Kind.ANOMALY)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("smp", [1, 2, 4, 8])
def test_pes_dirty_the_same_pages(bench: Bench, tmp_path: Path, smp: int, mode: Mode) -> None:
    run = bench.run("smp.same_pages", tmp_path, smp=smp, mode=mode)
    agrees(run)
    assert not anomalies(run)
    entered = Counter(record[2] for record in run.trace if record[1] == Kind.ENTRY)
    assert entered == {pe: 12 for pe in range(smp)}
    assert sum(record[1] == Kind.APPEND for record in run.trace) >= 12 * 480


@pytest.mark.parametrize("program", ["endian", "eretaa"])
def test_other_ways_into_a_guest(bench: Bench, tmp_path: Path, program: str) -> None:
    """With big-endian tables; by ERETAA, to which nothing can be diverted."""
    run = bench.run(program, tmp_path)
    assert run.report.complete, run.stderr
    assert run.failed == []
    assert sum(record[1] == Kind.APPEND for record in run.trace) == 1


@pytest.mark.parametrize("mode", MODES)
def test_cpu_off_is_a_reset(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    run = bench.run("reset", tmp_path, smp=2, mode=mode)
    agrees(run)
    resets = Counter(record[2] for record in run.trace if record[1] == Kind.RESET)
    assert resets == {0: 1, 1: 5}


def test_pes_that_look_alike(bench: Bench, tmp_path: Path) -> None:
    """Without a TPIDR_EL2 of its own a PE is known in parallel mode only, and the trace says so."""
    agrees(bench.run("twins", tmp_path / "p", smp=2))
    run = bench.run("twins", tmp_path / "d", smp=2, mode=Mode.DETERMINISTIC)
    assert run.failed[-1].startswith("Bail out! no unexpected exception at EL2")
    assert anomalies(run)[Anomaly.UNKNOWN_PE] == 1


@pytest.mark.parametrize("mode", MODES)
def test_hostile(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    flash = tmp_path / "flash"
    clean = 0x44000000 | 3 << 8 | 0xF << 2 | 1 << 10 | 1 << 51 | 1 << 6 | 3
    flash.write_bytes((struct.pack("<Q", clean) * 512).ljust(FLASH_BYTES, b"\0"))
    run = bench.run(
        "hostile",
        tmp_path,
        mode=mode,
        extra=("-drive", f"if=pflash,unit=1,format=raw,readonly=on,file={flash}"),
    )
    flash.unlink()
    agrees(run)
    seen = anomalies(run)
    assert seen[Anomaly.BUFFER_OUTSIDE_RAM] >= 4
    assert seen[Anomaly.RESERVED_SZ] >= 6
    assert seen[Anomaly.TABLE_OUTSIDE_RAM] >= 1
    assert seen[Anomaly.WALK_UNSUPPORTED] >= 1


def test_trace_is_what_the_program_did(bench: Bench, tmp_path: Path) -> None:
    run = bench.run("registers.fields,append", tmp_path)
    trace = run.trace
    assert (trace.header.writer, trace.header.nr_pes) == ("plugin", 1)
    assert (trace.header.ram_base, trace.header.ram_size) == (0x40000000, 256 << 20)
    records = list(trace)
    assert [record[1] for record in records[:2]] == [Kind.BEGIN, Kind.RESET]
    first = next(r for r in records if r[1] == Kind.WRITE and r[4] == SysReg.HDBSSBR_EL2)
    assert first[4:7] == (SysReg.HDBSSBR_EL2, 2**64 - 1, 0x00FFFFFFFFFFF00F)
    assert 0x40080000 <= first[7] < 0x40200000
    append = next(record for record in records if record[1] == Kind.APPEND)
    assert append[4] == 0x44000000
    assert append[5] == 0x44000007
    assert append[9] == append[8] | 1 << 7
    # a transparent append is no exit
    kinds = [record[1] for record in records]
    at = kinds.index(Kind.APPEND)
    assert kinds[at - 1 : at + 2] == [Kind.ENTRY, Kind.APPEND, Kind.EXIT]


@pytest.mark.parametrize(("program", "smp"), [("append", 1), ("vtcr", 1), ("smp", 4)])
def test_deterministic_runs_have_the_same_trace(
    bench: Bench, tmp_path: Path, program: str, smp: int
) -> None:
    first, second = (
        bench.run(program, tmp_path / name, smp=smp, mode=Mode.DETERMINISTIC) for name in "ab"
    )
    agrees(first)
    assert first.trace_file.read_bytes() == second.trace_file.read_bytes()


def test_without_the_plugin_the_programs_fail(bench: Bench, tmp_path: Path) -> None:
    """The twin: on a PE without HDBSS the same checks fire."""
    run = bench.run("registers,append", tmp_path, plugin_options="")
    assert run.report.complete
    assert {test.outcome for test in run.report.tests} == {Outcome.FAIL}
    reasons = [test.reason for test in run.report.tests]
    assert reasons[0] == "ID_AA64MMFR1_EL1.HAFDBS is 4: required 0x4, seen 0x2"
    assert reasons[1].startswith("no unexpected exception at EL2: seen ESR_EL2 0x2000000 at ")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that must not agree: what the kernel did is falsified after the fact.

Whole kernels that are wrong are built by ``ci/nightly``; here each checker sees one
real run of our kernel in which a single thing has been changed.
"""

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.machine.progress import SilentProgress
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import select
from qemu_model.trace import HEADER, RECORD, Kind
from tests.system.conftest import hdbss


@pytest.fixture(scope="module")
def good_run(prepared: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (scenario,) = select(["buffer.full"])
    bench = replace(prepared, keep=tmp_path_factory.mktemp("runs"))
    result = run_scenario(bench, scenario, SilentProgress())
    assert result.verdict == "agree"
    return Path(result.directory)


@pytest.fixture
def run(good_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may falsify."""
    for file in good_run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def _reported_less(run: Path) -> None:
    """The last page of the last report vanishes."""
    log = run / "agent.log"
    lines = log.read_bytes().split(b"\n")
    at = max(i for i, line in enumerate(lines) if b"what=reported list=0-" in line)
    body = re.sub(rb"list=0-\d+$", b"list=0-1999", lines[at])
    mark, seq, _, rest = body.split(b" ", 3)
    crc = b"%08x" % zlib.crc32(seq + b" " + rest)
    lines[at] = b" ".join((mark, seq, crc, rest))
    log.write_bytes(b"\n".join(lines))


def _change_record(run: Path, kind: Kind, field: int, xor: int) -> None:
    """One field of the last record of a kind is changed."""
    path = run / "trace.bin"
    data = bytearray(path.read_bytes())
    for offset in range(len(data) - RECORD.size, HEADER.size - 1, -RECORD.size):
        record = list(RECORD.unpack_from(data, offset))
        if record[1] == kind:
            record[4 + field] ^= xor
            RECORD.pack_into(data, offset, *record)
            path.write_bytes(data)
            return
    raise AssertionError(f"no {kind.name} in the trace")


def test_the_run_agrees_offline(run: Path) -> None:
    done = hdbss("check", run)
    assert done.returncode == 0, done.stdout
    assert "1 agree" in done.stdout


def test_a_page_that_is_not_reported_is_lost(run: Path) -> None:
    _reported_less(run)
    done = hdbss("check", run)
    assert done.returncode == 1
    assert "[lost] page 2000 of slot 0" in done.stdout
    assert "[drained]" in done.stdout


@pytest.mark.parametrize(
    ("kind", "field", "xor", "checker"),
    [
        (Kind.APPEND, 1, 0x1000, "mirror"),
        (Kind.APPEND, 2, 8, "mirror"),
        (Kind.REFUSE, 2, 1, "mirror"),
        (Kind.ENTRY, 2, 1 << 22, "programming"),
        (Kind.ENTRY, 0, 1 << 40, "programming"),
    ],
)
def test_a_falsified_record_is_found(
    run: Path, kind: Kind, field: int, xor: int, checker: str
) -> None:
    _change_record(run, kind, field, xor)
    done = hdbss("check", run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"[{checker}]" in done.stdout


def _forgotten_bit(run: Path) -> int:
    """A bit that the next to last flush had set is 0; returns the number of that flush."""
    path = run / "flushes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    flush = [line for line in lines if "flush" in line][-2]
    slot = next(slot for slot in flush["slots"] if slot[0] == 0)
    flush["clean"] = str(slot[1] + 5)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return int(flush["flush"])


def test_a_bit_that_a_flush_forgot_is_found(run: Path) -> None:
    number = _forgotten_bit(run)
    done = hdbss("check", run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"[flushed] flush {number} (PE 1, at hdbss_drain+" in done.stdout
    assert "lost page 5 of slot 0 (1 pages in this flush, 1 such flushes)" in done.stdout


def test_a_flush_that_nobody_saw_is_said(run: Path) -> None:
    path = run / "flushes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + json.dumps({"end": len(lines) - 3}) + "\n")
    _change_record(run, Kind.APPEND, 1, 0x1000)  # so that there is a block that says it
    done = hdbss("check", run)
    flushes = len(lines) - 2
    assert f"not checked: flushed: 1 of {flushes} flushes: nobody looked at it" in done.stdout


def test_a_flush_that_nothing_protected_is_found(run: Path) -> None:
    path = run / "flushes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    flush = next(line for line in lines if line.get("index"))
    assert (flush["unprotected"], flush["unjudged"]) == ("-", 0)
    flush["unprotected"] = f"{flush['slots'][0][1]}"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = hdbss("check", run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"[srcu] flush {flush['flush']} (PE 1, at hdbss_drain+" in done.stdout


def _change_looks(run: Path, why: str, **changes: object) -> None:
    """As if the kernel's struct page had said something else at these moments."""
    path = run / "buffers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in lines if line.get("why") == why]
    assert found
    for line in found:
        line |= changes
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("why", ["appended", "drain", "flush"])
def test_entries_in_a_page_that_nobody_holds_are_found(run: Path, why: str) -> None:
    _change_looks(run, why, owner=0)
    done = hdbss("check", run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "entries in memory that is not its buffer any more" in done.stdout
    assert "the reference count of its first page" in done.stdout


def test_a_buffer_that_is_freed_before_hdbss_is_off_is_found(run: Path) -> None:
    _change_looks(run, "withdrawn", owner=0)
    done = hdbss("check", run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[buffer] PE 1 may still write to a buffer that was given away" in done.stdout
    assert "[flushed]" not in done.stdout and "I5, R_GKFDY" in done.stdout


def test_a_warning_of_the_kernel_is_found(run: Path) -> None:
    with (run / "console.log").open("a") as console:
        console.write("[    9.0] WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 f+0x0/0x4\n")
    done = hdbss("check", run)
    assert done.returncode == 1 and "[kernel_log]" in done.stdout


def test_a_purpose_that_was_not_reached_is_found(run: Path) -> None:
    with (run / "program.txt").open("a") as program:
        program.write("# reach refusals>=100000\n")
    done = hdbss("check", run)
    assert done.returncode == 1 and "[reached]" in done.stdout

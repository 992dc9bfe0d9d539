# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent inside a real machine: each operation, and each of its refusals."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from qemu_model.channel import Frame, Pages, Result, What
from qemu_model.checkers.uapi import noise
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.vm import Limits, run_machine
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import Needs

G = 0x4000_0000
DOOR = "exit=door reason=KVM_EXIT_MMIO mmio=0"


def chosen(seed: int, pages: int, count: int) -> set[int]:
    """The pages that the payload ``random`` stores to: xorshift64."""
    mask, result = (1 << 64) - 1, set()
    for _ in range(count):
        seed ^= seed << 13 & mask
        seed ^= seed >> 7
        seed ^= seed << 17 & mask
        result.add(seed % pages)
    return result


def stores(kind: str, changed: set[int], more: str = DOOR) -> list[tuple[str, str, set[int]]]:
    """A payload on vCPU 0, and that memory and dirty log tell the same of it."""
    return [
        (f"run 0 {kind}", f"ret=0 {more}", set()),
        ("compare 0", f"ret=0 changed={len(changed)}", changed),
        ("get 0", f"ret=0 reported={len(changed)}", changed),
    ]


def refused(line: str, expect: str) -> tuple[str, str, set[int]]:
    return line, f"ret=-1 {expect}", set()


def fine(line: str, expect: str = "") -> tuple[str, str, set[int]]:
    return line, f"ret=0 {expect}", set()


STEPS = [
    refused("get 0", "errname=EINVAL error=no-vm"),
    refused("destroy", "errname=EINVAL error=no-vm"),
    refused("vcpu 0", "errname=EINVAL error=no-vm"),
    refused("check-cap cap=hdbss", "errname=EOPNOTSUPP error=no-uapi"),
    fine("uapi cap=0"),
    refused("enable-cap cap=hdbss", "errname=EINVAL error=no-vm"),
    fine("vm"),
    refused("vm", "errname=EEXIST error=vm-exists"),
    refused("hdbss on order=1", "errname=EOPNOTSUPP error=no-uapi"),
    refused("enable-cap cap=0xffffffff", "errname=EINVAL"),
    refused("run 0 read gpa=0 count=1 stride=0", "errname=EINVAL error=no-vcpu"),
    fine("vcpu 0"),
    refused("vcpu 0", "errname=EEXIST error=vcpu-exists"),
    refused("created 1", "errname=EINVAL error=not-creating"),
    refused("create 1 cpu=1000", "errname=EINVAL"),
    fine("create 1 cpu=0"),
    refused("create 2 cpu=0", "errname=EBUSY error=creating"),
    refused("destroy", "errname=EBUSY error=creating"),
    fine("created 1"),
    fine("create 1 cpu=0"),
    refused("created 1", "errname=EEXIST error=vcpu-exists"),
    fine(f"slot 0 gpa={G} pages=256 mem=anon log lane=0"),
    refused(f"slot 0 gpa={G} pages=255 mem=anon log", "errname=EEXIST error=slot-exists"),
    refused(f"slot 0 gpa={G} pages=256 mem=memfd", "errname=EINVAL error=memory-differs"),
    refused(f"slot 1 gpa={G} pages=1 mem=anon", "errname=EEXIST"),
    refused("slot 2 gpa=1 pages=1 mem=anon", "errname=EINVAL"),
    refused("slot 3 gpa=0 pages=1 mem=alias:9", "errname=EINVAL error=bad-alias"),
    refused("slot 3 gpa=0 pages=1048576 mem=anon", "errname=ENOMEM error=no-memory"),
    refused("compare 0", "errname=EINVAL error=no-snapshot"),
    refused("precopy-round 0", "errname=EINVAL error=no-precopy"),
    fine("snapshot 0"),
    refused("await 0 page=256", "errname=EINVAL error=no-such-page"),
    refused("await 0 page=0 limit=20", "errname=ETIMEDOUT error=page-unchanged"),
    *stores(f"stride gpa={G} count=10 stride=8192 value=7", set(range(0, 20, 2))),
    *stores(f"stride gpa={G} count=10 stride=8192 value=7", set(), DOOR)[:2],
    # The same values again: a dirty page that did not change, the bench's reason for values.
    ("get 0", "ret=0 reported=10", set(range(0, 20, 2))),
    *stores(f"stride gpa={G} count=3 stride=4096 ocount=2 ostride=0x10000 value=9 width=1",
            {0, 1, 2, 16, 17, 18}),
    *stores(f"stride gpa={G} count=3 stride=4096 value=100 loops=50", {0, 1, 2},
            "exit=door iterations=50"),
    *stores(f"random gpa={G} pages=256 count=90 seed=77 value=0x1000", chosen(77, 256, 90)),
    *stores(f"atomic gpa={G} count=2 stride=4096 how=ldadd value=1", {0, 1}),
    *stores(f"atomic gpa={G} count=2 stride=4096 how=swp value=0x77777", {0, 1}),
    *stores(f"atomic gpa={G} count=2 stride=4096 how=cas value=0x88888", {0, 1}),
    *stores(f"atomic gpa={G} count=2 stride=4096 how=stxr value=0x99999", {0, 1}),
    *stores(f"read gpa={G} count=256 stride=4096", set()),
    # The agent put the code there, and not the guest: nothing has changed.
    *stores(f"exec gpa={G} count=256 stride=4096", set()),
    refused("run 0 exec gpa=0 count=1 stride=0", "errname=EINVAL error=no-memory-there"),
    refused(f"run 0 exec gpa={G} count=1048577 stride=0", "errname=E2BIG error=too-many"),
    # An address that no stage 1 can translate: the payload's own exception.
    refused("run 0 read gpa=0x1000000000000 count=1 stride=0",
            "errname=EFAULT exit=error error=guest-exception esr=0x96000010 far=0x1000000000000"),
    # No memory there: as a VMM without a device.
    fine("run 0 stride gpa=0x80000000 count=5 stride=8 value=1",
         "exit=door mmio=5 mmio_gpa=0x80000000"),
    refused(f"run 0 read gpa={G} count=1 stride=0 loops=0 limit=50",
            "errname=ETIMEDOUT exit=timeout reason=KVM_EXIT_INTR"),
    refused("wait 0", "errname=EINVAL error=not-started"),
    refused("stop 7", "errname=EINVAL error=no-vcpu"),
    fine(f"slot 5 gpa={G + 0x200000} pages=256 mem=alias:0 lane=5"),
    fine("snapshot 5"),
    fine(f"run 0 stride gpa={G + 0x200000} count=4 stride=4096 value=3 lane=5", DOOR),
    ("compare 5", "ret=0", {0, 1, 2, 3}),
    ("compare 0", "ret=0", set()),
    refused("get 5", "errname=ENOENT"),
    fine("slot 6 gpa=0x90000000 pages=16 mem=memfd ro"),
    fine("run 0 stride gpa=0x90000000 count=16 stride=4096 value=3", "exit=door mmio=16"),
    fine(f"start 0 stride gpa={G} count=8 stride=4096 value=1 loops=0"),
    refused(f"start 0 stride gpa={G} count=8 stride=4096 value=1", "errname=EBUSY"),
    fine("await 0 page=7"),
    fine("precopy 0"),
    fine("pin vcpu=0 cpu=0"),
    fine("pin fifo vcpu=0 cpu=1"),
    fine("pin agent cpu=0"),
    refused("pin agent cpu=1000", "errname=EINVAL"),
    refused("pin vcpu=3 cpu=0", "errname=EINVAL error=no-vcpu"),
    ("precopy-round 0", "ret=0 reported=8", set(range(8))),
    # Between two stores to the last page, however busy the host is, all others get theirs.
    *[fine("snapshot 0"), fine("await 0 page=7")] * 2,
    fine("stop 0", "exit=interrupted reason=KVM_EXIT_INTR"),
    ("precopy-final 0", "ret=0 differs=0", set(range(8))),
    # Two passes, and then the guest goes on without a store.
    fine(f"start 0 stride gpa={G} count=8 stride=4096 value=0x500 loops=2 spin"),
    fine("await 0 page=7"),
    ("compare 0", "ret=0", set(range(8))),
    fine("sleep ms=100"),
    fine("stop 0", "exit=interrupted reason=KVM_EXIT_INTR iterations=2 mmio=0"),
    refused(f"run 0 read gpa={G} count=1 stride=0 spin limit=50",
            "errname=ETIMEDOUT exit=timeout reason=KVM_EXIT_INTR iterations=1"),
    fine("klog", "lines=0 lost=0"),
    fine("klog level=7", "lost=0"),
    refused("fly", "errname=EINVAL error=parse"),
    refused("unhog", "errname=EINVAL error=no-hog"),
    fine("hog"),
    refused("hog", "errname=EEXIST error=hog-exists"),
    # With nothing to spare: PID 1 must not meet the OOM killer.
    refused("slot 9 gpa=0xa0000000 pages=16384 mem=anon", "errname=ENOMEM error=no-memory"),
    fine(f"run 0 read gpa={G} count=256 stride=4096", DOOR),
    fine("unhog"),
    refused("cpu 9 on", "errname=ENOENT"),
    fine("cpu 1 off"),
    fine(f"run 0 read gpa={G} count=256 stride=4096", DOOR),
    fine("cpu 1 on"),
    refused("unhog", "errname=EINVAL error=no-hog"),
    fine("unslot 0"),
    refused("unslot 0", "errname=EINVAL error=no-slot"),
    fine("destroy"),
    fine("fail-alloc nth=1 order=1"),
    refused("vm", "errname=ENOMEM"),
    fine("fail-alloc nth=1 order=1"),
    fine("fail-alloc nth=0"),
    fine("vm dirty=initially-set"),
    fine("slot 127 gpa=0 pages=130 mem=anon log"),
    ("get 127", "ret=0 reported=130", set(range(130))),
    ("clear 127 first=64 pages=64", "ret=0 cleared=64", set(range(64, 128))),
    refused("clear 127 first=1 pages=64", "errname=EINVAL"),
    ("get 127", "ret=0 reported=66", {*range(64), 128, 129}),
    ("clear 127", "ret=0 cleared=66", {*range(64), 128, 129}),
    ("get 127", "ret=0 reported=0", set()),
    fine("slot 1 gpa=0x10200000 pages=1024 mem=thp", "huge_kb=4096"),
]  # fmt: skip


def boot(bench: Bench, program: str, run_dir: Path) -> list[tuple[Result, set[int]]]:
    """Run a program; each result with the pages that its operation named."""
    spec = bench.machine(Needs(feature=False))
    outcome = run_machine(spec, bench.qemu, program, run_dir, Limits(), SilentProgress())
    assert outcome.channel.problems == ()
    pages: dict[int, set[int]] = {}
    for frame in outcome.channel.frames:
        if isinstance(frame, Pages) and frame.what is not What.DIFFERS:
            named = pages.setdefault(frame.line, set())
            named.update(page for first, last in frame.ranges for page in range(first, last + 1))
    results = [frame for frame in outcome.channel.frames if isinstance(frame, Result)]
    told = [without_noise(result, outcome.channel.frames) for result in results]
    return [(result, pages.get(result.line, set())) for result in told]


def without_noise(result: Result, frames: Sequence[Frame]) -> Result:
    """The result of a ``klog`` as it is on an idle host."""
    if "lines" not in result.fields:
        return result
    lines = int(result.fields["lines"]) - noise(frames, result.line)
    return replace(result, fields={**result.fields, "lines": str(lines)})


@pytest.fixture(scope="module")
def answers(
    prepared: Bench, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Result, set[int]]]:
    """All steps in one boot."""
    program = "".join(f"{line}\n" for line, _, _ in STEPS)
    return boot(prepared, program, tmp_path_factory.mktemp("agent") / "run")


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step[0] for step in STEPS])
def test_a_step(answers: list[tuple[Result, set[int]]], number: int) -> None:
    _, expect, pages = STEPS[number]
    result, named = answers[number]
    assert result.line == number + 1
    said = {**result.fields, "ret": str(result.ret)}
    wanted = dict(pair.split("=", 1) for pair in expect.split())
    assert {key: said.get(key) for key in wanted} == wanted
    assert named == pages


def test_a_program_of_arbitrary_bytes_is_answered_line_by_line(
    prepared: Bench, tmp_path: Path
) -> None:
    lines = ["run " * 500, "\x01\x02\x7f", "vcpu \u00e4", "=" * 200, "slot 0 gpa", "0", "%s%n"]
    results = boot(prepared, "\n".join(lines), tmp_path / "run")
    assert [result.fields["error"] for result, _ in results] == ["parse"] * len(lines)


def test_after_a_limit_that_ran_out_the_next_ones_are_short_until_the_guest_gets_on(
    prepared: Bench, tmp_path: Path
) -> None:
    """A guest that is refused for ever costs its limit once, and not at every wait."""
    late = "await 0 page=0 limit=1500"
    endless = "await 0 page=0 limit=60000"
    lines = ["vm", "vcpu 0", f"slot 0 gpa={G} pages=16 mem=anon", "snapshot 0"]
    lines += ["clock", late, "clock", endless, endless, "clock"]
    lines += [f"run 0 stride gpa={G} count=1 stride=4096 value=1", "compare 0", "clock", late]
    lines += ["clock"]
    results = boot(prepared, "\n".join(lines), tmp_path / "run")
    clocks = [int(result.fields["ns"]) for result, _ in results if "ns" in result.fields]
    first, short, _, again = (b - a for a, b in pairwise(clocks))
    assert [result.ret for result, _ in results if result.op == "await"] == [-1] * 4
    assert first >= 1_500_000_000
    assert 1_000_000_000 <= short < 30_000_000_000
    assert again >= 1_500_000_000

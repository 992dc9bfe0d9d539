# SPDX-License-Identifier: GPL-2.0-or-later
"""``programming``, ``liveness``, ``uapi``, ``kernel_log`` and ``judge``, with twins that fire."""

import time

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.checkers import kernel_log, liveness, programming, uapi
from qemu_model.checkers.history import History
from qemu_model.checkers.judge import judge
from qemu_model.errors import InfrastructureError
from qemu_model.model.injection import What
from qemu_model.trace import END_LIMIT, END_NO_SPACE, Anomaly, Kind, describe
from tests.unit.checkers.factory import (
    BR,
    BUFFER,
    PROD,
    VTCR,
    VTCR_OFF,
    Event,
    append,
    entry,
    event,
    leave,
    make_run,
    make_trace,
    mark,
)

NOTHING = History()


def rules(*events: Event) -> list[str]:
    return [f.rule.split()[0] for f in programming.violations(make_trace(events))]


@pytest.mark.parametrize(
    "events",
    [
        [entry(), leave(), entry(prod=512)],
        [entry(br=BUFFER | 9)],
        [entry(br=0xFFF, prod=0xFFFF_FFFF, vtcr=VTCR_OFF)],
        [entry(), leave(), entry(pe=1), leave(pe=1), entry()],
        [entry(), leave(prod=3), event(Kind.WRITE, PROD, 0), entry(pe=1)],
        [entry(), entry(br=BUFFER + 0x1000, pe=1)],
        [entry(), event(Kind.RESET), entry(pe=1)],
        # What nobody has told software yet, and what it has not written.
        [entry(), leave(prod=0x10 << 26), entry(prod=0x10 << 26)],
        [entry(), event(Kind.INJECT, What.INDEX, 0, 0, 600), leave(prod=600), entry(prod=600)],
    ],
)
def test_registers_that_the_architecture_allows(events: list[Event]) -> None:
    assert rules(*events) == []


@pytest.mark.parametrize(
    ("events", "rule"),
    [
        ([entry(vtcr=VTCR & ~(1 << 22))], "VTCR_EL2.HDBSS"),
        ([entry(vtcr=VTCR & ~(1 << 21))], "VTCR_EL2.HDBSS"),
        ([entry(br=BUFFER | 10)], "HDBSSBR_EL2.SZ"),
        ([entry(br=BUFFER + 0x1000 | 1)], "I_SXBYL"),
        ([entry(br=0)], "HDBSSBR_EL2.BADDR"),
        ([entry(br=0x6000_0000 - 0x1000 | 0), entry(br=0x6000_0000)], "HDBSSBR_EL2.BADDR"),
        ([entry(prod=513)], "R_RXCMY"),
        ([event(Kind.READ, PROD, 0x10 << 26), entry(prod=0x10 << 26)], "I6"),
        ([entry(), event(Kind.REFUSE), leave(), entry(prod=0x10 << 26)], "I6"),
        (
            [
                entry(),
                event(Kind.INJECT, What.INDEX, 0, 0, 600),
                event(Kind.WRITE, PROD, 600, 600),
                entry(prod=600),
            ],
            "R_RXCMY",
        ),
        ([entry(br=BUFFER | 1), entry(br=BUFFER + 0x1000, pe=1)], "I4"),
        ([entry(), leave(prod=3), entry(pe=1)], "I4"),
        ([event(Kind.ANOMALY, Anomaly.TABLE_OUTSIDE_RAM, 7)], "VTTBR_EL2,"),
    ],
)
def test_registers_that_it_does_not_allow(events: list[Event], rule: str) -> None:
    assert rules(*events) == [rule]


def written(index: int) -> Event:
    return event(Kind.WRITE, PROD, index, index)


OTHER = 0x4610_0000
"""A stage 2 table of another VM than ``entry`` has."""


def other_guest(prod: int, br: int = BUFFER, vttbr: int = OTHER) -> Event:
    return event(Kind.ENTRY, br, prod, VTCR, vttbr, 1, 0x1000_0000)


@pytest.mark.parametrize(
    "events",
    [
        [other_guest(3)],
        [other_guest(3, BUFFER + 0x1000)],
        [event(Kind.RESET, BUFFER, 3), entry(prod=3)],
    ],
)
def test_an_index_of_another_guest_or_buffer_or_of_nobody(events: list[Event]) -> None:
    before = [] if events[0][0] == Kind.RESET else [entry(), leave(prod=3)]
    assert rules(*before, *events) == ["I4"]
    assert rules(*before, *events[:-1], written(3), *events[-1:]) == []


@pytest.mark.parametrize(
    "events",
    [
        # The same VM with another VMID, and with CnP.
        [entry(), leave(prod=3), event(Kind.ENTRY, BUFFER, 3, VTCR, 7 << 48 | 0x4600_0001, 1)],
        # A guest without HDBSS in between.
        [entry(), leave(prod=3), entry(br=0, prod=3, vtcr=VTCR_OFF), leave(prod=3), entry(prod=3)],
        [entry(), leave(), other_guest(0)],
        [entry(), leave(), event(Kind.INJECT, What.INDEX, 0, 0, 5), other_guest(5)],
        [event(Kind.RESET, BUFFER, 3), entry(prod=3, vtcr=VTCR_OFF)],
    ],
)
def test_an_index_of_the_guest_and_buffer_that_are_entered(events: list[Event]) -> None:
    assert rules(*events) == []


def test_a_wrong_register_is_told_once() -> None:
    run = make_run("vm", trace=[entry(br=0), leave(), entry(br=0)])
    assert len(programming.check(run, NOTHING)) == 1


VTCR_EL2 = int(SysReg.VTCR_EL2)
HA = 1 << 21


def writes(*values: int) -> list[str]:
    events = [event(Kind.WRITE, VTCR_EL2, value, value) for value in values]
    return [f.rule.split()[0] for f in programming.access_flags(make_trace(events))]


@pytest.mark.parametrize(
    "values",
    [
        (VTCR, VTCR_OFF, VTCR),
        (VTCR_OFF & ~HA, VTCR_OFF, VTCR, VTCR_OFF),
        (VTCR_OFF & ~HA, VTCR, VTCR_OFF & ~HA, VTCR, VTCR_OFF & ~HA),  # never had it by itself
        (VTCR, (VTCR_OFF & ~HA) ^ 1),  # another table's, whatever it is for
    ],
)
def test_switching_that_leaves_the_access_flag_alone(values: tuple[int, ...]) -> None:
    assert writes(*values) == []


def test_switching_off_that_takes_the_access_flag_with_it() -> None:
    assert writes(VTCR_OFF & ~HA, VTCR_OFF, VTCR, VTCR_OFF & ~HA) == ["VTCR_EL2.HA"]
    assert writes(VTCR_OFF, VTCR, VTCR_OFF & ~HA) == ["VTCR_EL2.HA"]
    events = [event(Kind.WRITE, VTCR_EL2, value, value) for value in (VTCR, VTCR_OFF & ~HA)]
    (finding,) = programming.check(make_run("vm", trace=events), NOTHING)
    assert "lost VTCR_EL2.HA" in finding.summary and len(finding.records) == 1


ORDERS = "hdbss on order=1\nhdbss off\nhdbss on order=0\nenable-cap cap=hdbss a0=1 a1=1\n"


@pytest.mark.parametrize(
    ("events", "seen"),
    [
        ([mark(1), mark(1, 1), entry(br=BUFFER | 1)], []),
        ([mark(1), entry(br=BUFFER), mark(1, 1)], []),  # it has not returned: nobody knows
        ([mark(1, 1), mark(2), entry(br=BUFFER | 3)], []),
        ([mark(1, 1), mark(2), mark(2, 1), mark(3), mark(3, 1), entry(br=BUFFER)], []),
        ([mark(3, 1), mark(4), mark(4, 1), entry(br=BUFFER | 1)], []),
        ([mark(1, 1), entry(br=BUFFER | 2, vtcr=VTCR_OFF)], []),
        ([mark(1, 1), entry(br=BUFFER)], ["SZ = 0: 4 KB are written to"]),
        ([mark(3, 1), entry(br=BUFFER | 1)], ["SZ = 1: 8 KB are written to"]),
    ],
)
def test_the_size_that_was_asked_for(events: list[Event], seen: list[str]) -> None:
    run = make_run(ORDERS, trace=events)
    findings = programming.check(run, NOTHING)
    assert [finding.seen for finding in findings] == seen


def test_a_size_that_was_refused_is_not_asked_for() -> None:
    said = {1: ["result ret=-1 errno=22"]}
    run = make_run(ORDERS, said, trace=[mark(1, 1), entry(br=BUFFER)])
    assert programming.check(run, NOTHING) == []


def refuse(prod: int, pe: int = 0, br: int = BUFFER) -> Event:
    return event(Kind.REFUSE, 0x4000_0000, 0x800_9200_004F, prod, 0, 0, br, pe=pe)


@pytest.mark.parametrize(
    "events",
    [
        [refuse(512), event(Kind.WRITE, PROD, 0, 0), refuse(512)],
        [refuse(512), refuse(512, pe=1)],
        [refuse(512), refuse(1024, br=BUFFER | 1)],
        [refuse(512), event(Kind.RESET), refuse(512)],
    ],
)
def test_refusals_after_a_change_are_progress(events: list[Event]) -> None:
    assert liveness.check(make_run("vm", trace=events), NOTHING) == []


def test_writing_the_same_value_back_is_no_progress() -> None:
    events = [refuse(512), event(Kind.WRITE, PROD, 512, 512), refuse(512)]
    assert len(liveness.check(make_run("vm", trace=events), NOTHING)) == 1


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ([written(0), written(512)], 1),
        ([written(0), written(7), append(0, 512 + 7, pe=1), written(512)], 1),
        ([written(0), written(7), append(0, 512 + 7), written(512)], 1),  # of another vCPU
        ([written(0), append(0, 7, pe=1), written(512)], 0),  # emptied, and filled elsewhere
        ([written(0), append(0, 0), written(0), written(512)], 0),  # emptied, and full again
        ([written(0), written(512), written(0)], 0),
        ([written(0), written(512), event(Kind.RESET)], 0),
    ],
)
def test_an_index_that_was_put_aside_and_is_back(events: list[Event], findings: int) -> None:
    trace = [refuse(512), *events, refuse(512)]
    assert len(liveness.check(make_run("vm", trace=trace), NOTHING)) == findings


def test_a_refusal_that_repeats_with_the_same_registers_is_none() -> None:
    events = [refuse(512), event(Kind.WRITE, BR, 0), leave(prod=512), entry(), refuse(512)]
    (finding,) = liveness.check(make_run("vm", trace=events), NOTHING)
    assert "0x200" in finding.seen and len(finding.records) == 2


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("vm", "result ret=3 errno=0"),
        ("hdbss on order=11 # expect errno=EINVAL", "result ret=-1 errno=22"),
        ("hdbss off # expect errno=0|EINVAL", "result ret=0 errno=0"),
        ("hdbss off # expect errno=0|EINVAL", "result ret=-1 errno=22"),
        ("check-cap cap=hdbss # expect ret=1", "result ret=1 errno=0"),
        ("run 0 stride", "result ret=0 errno=0 exit=door"),
        ("run 0 stride loops=0", "result ret=0 errno=0 exit=interrupted"),
        ("stop 0", "result ret=0 errno=0 exit=interrupted"),
        ("run 0 stride # expect exit=mmio", "result ret=0 errno=0 exit=mmio"),
        ("get 1 # expect reported=0|96", "result ret=0 errno=0 reported=0"),
        ("get 1 # expect reported=0|96", "result ret=0 errno=0 reported=96"),
    ],
)
def test_results_that_are_expected(line: str, frame: str) -> None:
    assert uapi.check(make_run(line, {1: [frame]}), NOTHING) == []


@pytest.mark.parametrize(
    ("line", "frame", "seen"),
    [
        ("vm", "result ret=-1 errno=12", "errno = ENOMEM"),
        ("hdbss on order=11 # expect errno=EINVAL", "result ret=0 errno=0", "errno = 0"),
        ("hdbss on order=11 # expect errno=EINVAL", "result ret=-1 errno=1", "errno = EPERM"),
        ("check-cap cap=hdbss # expect ret=1", "result ret=0 errno=0", "ret = 0"),
        ("run 0 stride", "result ret=0 errno=0 exit=timeout", "exit = timeout"),
        ("wait 0", "result ret=0 errno=0 exit=error reason=17", "exit = error"),
        (
            "stop 0",
            "result ret=-1 errno=0 error=unexpected-exit exit=error reason=KVM_EXIT_INTERNAL_ERROR",
            "ret = -1",
        ),
        ("klog # expect lines=0", "result ret=0 errno=0 lines=2", "lines = 2"),
        ("klog # expect lines=0", "result ret=0 errno=0", "lines = "),
        ("get 1 # expect reported=0|96", "result ret=0 errno=0 reported=9", "reported = 9 "),
        ("get 1 # expect reported=0|96", "result ret=0 errno=0", "reported = "),
    ],
)
def test_results_that_are_not(line: str, frame: str, seen: str) -> None:
    (finding,) = uapi.check(make_run(line, {1: [frame]}), NOTHING)
    assert finding.seen.startswith(seen)


def test_a_busy_host_is_not_the_kernels_fault() -> None:
    said = [
        "line level=4 text=hrtimer:%20interrupt%20took%209%20ns",
        "result ret=0 errno=0 lines=1",
    ]
    program = "klog # expect ret=0 lines=0"
    assert uapi.check(make_run(program, {1: said}), NOTHING) == []
    said[0] = "line level=4 text=something%20else"
    (finding,) = uapi.check(make_run(program, {1: said}), NOTHING)
    assert finding.seen.startswith("lines = 1")


def test_an_operation_that_the_agent_never_reached_is_a_finding() -> None:
    (finding,) = uapi.check(make_run("vm\nvcpu 0\nvcpu 1", {2: ["cut"]}), NOTHING)
    assert "vcpu 0" in finding.summary


@pytest.mark.parametrize(
    "complaint",
    [
        "WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 kvm_x+0x4/0x8",
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
        "BUG: KASAN: slab-use-after-free in kvm_x",
        "Internal error: Oops: 0000000096000004 [#1] PREEMPT SMP",
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
        "WARNING: possible circular locking dependency detected",
        "WARNING: suspicious RCU usage",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "pagealloc: single bit error",
        "kernel BUG at mm/page_alloc.c:1!",
        "BUG: scheduling while atomic: init/1/0x00000002",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
        "BUG kmalloc-64 (Not tainted): Right Redzone overwritten",
        "INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
        "INFO: trying to register non-static key.",
    ],
)
def test_the_kernels_complaints_are_recognised(complaint: str) -> None:
    console = f"[    0.000000] Booting Linux\r\n[    1.000000] {complaint}\r\n[    1.1] next\r\n"
    findings = kernel_log.check(make_run("vm", console=console), NOTHING)
    assert findings and findings[0].seen == "line 2 of console.log"
    assert complaint in findings[0].records[0]
    assert findings[0].summary == f"the kernel's log complains: {complaint}"


@pytest.mark.parametrize("words", ["INFO: task ", "BUG x", "rcu_"])
def test_a_log_in_one_line_takes_no_longer(words: str) -> None:
    """A kernel under test may write what it likes, 16 MiB of it."""
    started = time.process_time()
    assert list(kernel_log.complaints(words * (4_000_000 // len(words)))) == []
    assert time.process_time() - started < 20


def test_a_long_line_is_shown_in_part() -> None:
    (finding,) = kernel_log.check(make_run("vm", console="WARNING: " * 100_000), NOTHING)
    assert len(finding.summary) < 200 and [len(line) for line in finding.records] == [400]


def test_complaints_without_end_are_told_in_part() -> None:
    console = "\n".join(f"INFO: task init:{number} blocked for more" for number in range(1000))
    assert len(kernel_log.check(make_run("vm", console=console), NOTHING)) == 20


def test_an_ordinary_boot_is_no_complaint() -> None:
    console = "\n".join(
        [
            "Booting Linux on physical CPU 0x0000000000 [0x000f0510]",
            "kvm [1]: VHE mode initialized successfully",
            "rcu: Preemptible hierarchical RCU implementation.",
            "rcu: INFO is what this line does not say",
            "Kernel command line: console=ttyAMA0 panic=-1",
            "random: crng init done",
        ]
    )
    assert kernel_log.check(make_run("vm", console=console), NOTHING) == []


def test_a_run_without_findings_agrees_and_says_what_was_not_checked() -> None:
    assert judge(make_run("vm")).divergences == ()
    verdict = judge(make_run("vm", trace=None))
    assert verdict.divergences == () and set(verdict.skipped) >= {"mirror", "programming"}


def test_a_run_that_is_not_whole_is_not_judged() -> None:
    with pytest.raises(InfrastructureError, match="killed"):
        judge(make_run("vm", trace=make_trace([mark(1)], ended=False)))
    with pytest.raises(InfrastructureError, match="limit"):
        judge(make_run("vm", trace=make_trace([mark(1)], end=END_LIMIT)))
    with pytest.raises(InfrastructureError, match="disk was full"):
        judge(make_run("vm", trace=make_trace([mark(1)], end=END_NO_SPACE)))


@pytest.mark.parametrize(
    "reason",
    [
        Anomaly.UNKNOWN_PE,
        Anomaly.REGISTER_UNREADABLE,
        Anomaly.WALK_DISAGREES,
        Anomaly.RETRY_LIMIT,
    ],
)
def test_a_run_in_which_the_interceptor_failed_is_not_judged(reason: Anomaly) -> None:
    with pytest.raises(InfrastructureError, match=reason.name):
        judge(make_run("vm", trace=[event(Kind.WRITE, BR, 0), event(Kind.ANOMALY, reason, 1)]))
    judge(make_run("vm", trace=[event(Kind.ANOMALY, reason, 1)]))


def test_records_are_described_whatever_they_hold() -> None:
    trace = make_trace([entry(), event(Kind.READ, BR, 5), event(Kind.ANOMALY, 3, 7), mark(4, 1)])
    words = [describe(record) for record in trace]
    assert "ENTRY HDBSSBR=0x48000000" in words[1]
    assert "HDBSSBR_EL2 value=0x5" in words[2]
    assert Anomaly(3).name in words[3]
    assert words[4].endswith("line 4 ends")
    assert "kind 77" in describe((1, 77, 0, 0, 0, 0, 0, 0, 0, 0))
    assert "ANOMALY 99" in describe((1, 9, 0, 0, 99, 0, 0, 0, 0, 0))

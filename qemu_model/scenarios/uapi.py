# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM_CAP_ARM_HW_DIRTY_STATE_TRACK: every argument, and kernels or PEs without it."""

from qemu_model.scenarios.scenario import LEAK, SLOT_GPA, Needs, Scenario, Script

_ENOMEM = "ret=-1 errno=ENOMEM"
_RARE = 5
"""An order that nobody asks for but HDBSS."""
_LARGEST = 2
"""MiB of a buffer of order 9."""
_EINVAL = "ret=-1 errno=EINVAL"


def _matrix(s: Script) -> None:
    s.vm(64)
    s("check-cap", cap="hdbss", expect="ret=1")

    def enable(a0: int, a1: int, expect: str = "", flags: int = 0) -> None:
        s("enable-cap", cap="hdbss", flags=flags, a0=a0, a1=a1, expect=expect)

    s("klog", level=7)
    enable(0, 0)  # off when off
    for order in range(10):
        enable(order, 1)
        enable(order, 1, _EINVAL)  # twice on
        enable((order + 1) % 10, 1, _EINVAL)  # another order while on
        enable((order + 3) % 10, 0)  # off, whatever the order says
        enable(order, 0)  # off again
    for order in (10, 11, 15, 16, 52, 63, 64, 1 << 32, (1 << 63) + 1, (1 << 64) - 1):
        enable(order, 1, _EINVAL)
    for switch in (2, 3, 1 << 32, (1 << 64) - 1):
        enable(0, switch, _EINVAL)
    enable(0, 1, _EINVAL, flags=1)
    enable(0, 1, _EINVAL, flags=1 << 31)
    # Arguments that have no meaning: trees differ in whether they are looked at.
    for unused in ({"a2": 1}, {"a3": (1 << 64) - 1}):
        s("enable-cap", cap="hdbss", a0=1, a1=1, **unused, expect="ret=0|-1")
        enable(0, 0)
    # Nothing that was refused may have left something behind.
    enable(0, 0)
    enable(9, 1)
    s("log", 0, "on")
    s("snapshot", 0)
    s.stride(64)
    s.harvest()
    s.stride(64)
    s.harvest()
    enable(0, 1, _EINVAL)
    s.stride(64)
    s.harvest()
    enable(0, 0)
    s.stride(64)
    s.harvest()
    s("klog", level=7, expect="ret=0 lines=0 lost=0")
    s.reaches("entries>=64")


_RING = 223
"""KVM_CAP_DIRTY_LOG_RING_ACQ_REL (include/uapi/linux/kvm.h)."""
_RING_BYTES = 4096
"""The smallest ring: 256 entries, of which KVM keeps 64 in reserve."""


def _ring(s: Script) -> None:
    pages = 320
    s("vm", dirty="plain")
    s("enable-cap", cap=_RING, flags=0, a0=_RING_BYTES)
    s("vcpu", 0)
    s("slot", 0, gpa=hex(SLOT_GPA), pages=pages, mem="anon")
    s.stride(pages)
    s("hdbss", "on", order=0, expect=_EINVAL)
    s("log", 0, "on")
    # Each first store to a page takes an entry, until KVM says in good time that it is full.
    s.stride(pages, expect="exit=error reason=KVM_EXIT_DIRTY_RING_FULL")
    s("destroy")
    s("vm", dirty="plain")
    s.hdbss_on(0)
    s("enable-cap", cap=_RING, flags=0, a0=_RING_BYTES, expect=_EINVAL)
    s("vcpu", 0)
    s("slot", 0, gpa=hex(SLOT_GPA), pages=pages, mem="anon")
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.stride(pages)
        s.harvest()
    s("klog", expect="ret=0 lines=0")
    s.reaches(f"entries>={pages}")


def _no_memory(s: Script) -> None:
    pages = s.size(256, 64)
    s.vm(pages, vcpus=8)
    # From its second KVM_RUN on nobody looks whether a vCPU has a buffer.
    s.stride(pages)
    s("hog")
    s("hdbss", "on", order=9, expect=_ENOMEM)  # 2 MB for each vCPU
    s("unhog")
    _nothing_has_changed(s, pages)


def _alloc_fails(s: Script) -> None:
    pages, vcpus = s.size(256, 64), 4
    s.vm(pages, vcpus=vcpus)
    s.stride(pages)
    for nth in range(1, vcpus + 1):
        s("fail-alloc", nth=nth, order=_RARE)
        s("hdbss", "on", order=_RARE, expect=_ENOMEM)
        s.stride(pages)
    for _ in range(LEAK // ((vcpus - 1) * _LARGEST) + 1):
        s("fail-alloc", nth=vcpus, order=9)
        s("hdbss", "on", order=9, expect=_ENOMEM)
    s.nothing_leaked()
    _nothing_has_changed(s, pages)


def _nothing_has_changed(s: Script, pages: int) -> None:
    """After HDBSS could not be switched on."""
    # Nothing is left behind: the log works by write protection, and HDBSS can be tried again.
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.stride(pages)
        s.harvest()
    s("klog", expect="ret=0 lines=0")
    s.hdbss_on(1)
    for _ in range(2):
        s.stride(pages)
        s.harvest()
    s.hdbss_off()
    s.reaches(f"entries>={pages}")


def _absent(s: Script) -> None:
    """What a kernel says that cannot use the feature; the log works by write protection."""
    s.vm(64)
    s("check-cap", cap="hdbss", expect="ret=0")
    s("enable-cap", cap="hdbss", flags=0, a0=0, a1=1, expect=_EINVAL)
    s("enable-cap", cap="hdbss", flags=0, a0=0, a1=0, expect=_EINVAL)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.stride(64)
        s.harvest()


def _nvhe(s: Script) -> None:
    _absent(s)
    s.reaches("entries=0", "writes=0", always=True)


SCENARIOS = (
    Scenario(
        "uapi.matrix",
        "every legal and illegal argument of the capability, in every state",
        "arguments that are not checked, messages in the log, state left by a refusal",
        _matrix,
        styles=("cap",),
    ),
    Scenario(
        "uapi.no-memory",
        "HDBSS is asked for while there is no memory for the buffers",
        "a flag or a VTCR_EL2 that a failed allocation leaves set",
        _no_memory,
        needs=Needs(memory=256),
        styles=("cap",),
    ),
    Scenario(
        "uapi.alloc-fails",
        "the first, second.. buffer cannot be allocated when HDBSS is asked for",
        "what was allocated or set before the failure stays",
        _alloc_fails,
        needs=Needs(
            symbol="fail_page_alloc_debugfs",
            config="CONFIG_FAIL_PAGE_ALLOC and CONFIG_FAULT_INJECTION_DEBUG_FS",
        ),
        styles=("cap",),
    ),
    Scenario(
        "ring.excluded",
        "the dirty ring and HDBSS, each asked for while the other one is on",
        "a drain that pushes a buffer full of pages into a ring that has a few entries left",
        _ring,
        styles=("cap",),
    ),
    Scenario(
        "uapi.nvhe",
        "a kernel in nVHE mode, where the capability must be absent",
        "the capability offered without VHE, or the registers touched there",
        _nvhe,
        needs=Needs(cmdline="kvm-arm.mode=nvhe"),
        not_in_gdb="the gdbstub interceptor serves VHE kernels: nVHE's code runs elsewhere",
        styles=("cap",),
    ),
    Scenario(
        "uapi.no-feature",
        "PEs without FEAT_HDBSS",
        "the capability offered, or registers touched, that the PE does not have",
        _absent,
        needs=Needs(feature=False),
        styles=("cap",),
    ),
)

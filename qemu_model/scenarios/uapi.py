# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM_CAP_ARM_HW_DIRTY_STATE_TRACK: every argument, and kernels or PEs without it."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script

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

# SPDX-License-Identifier: GPL-2.0-or-later
"""At which stops the interceptor lets the kernel's memory be looked at."""

from pathlib import Path

from qemu_model.buffers import Why
from qemu_model.machine.flushwatch import Stop
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.trace import Kind
from tests.unit.gdbstub.rig import (
    BR,
    BUFFER,
    FAULT,
    IPA,
    IRQ,
    MRS_PROD,
    MSR_BR,
    MSR_PROD,
    MSR_VTCR,
    SYNC,
    VTCR_OFF,
    Rig,
)


class Listener(KernelWatch):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Why | str, Stop]] = []

    def buffer(self, why: Why, stop: Stop) -> None:
        self.told.append((why, stop))

    def drain_begins(self, stop: Stop) -> None:
        self.told.append(("drain", stop))

    def flush(self, stop: Stop) -> None:
        self.told.append(("flush", stop))


def test_the_moments_of_a_buffer(tmp_path: Path) -> None:
    listener = Listener()
    rig = Rig(tmp_path, watch=listener)
    rig.map(IPA)
    rig.map(IPA + 0x1000)
    for turn in range(2):
        rig.on()
        for page in range(2):
            rig.stop(SYNC, ESR_EL2=FAULT, HPFAR_EL2=IPA + 0x1000 * page >> 8)
        rig.stop(IRQ)
        if turn:
            rig.stop(MSR_VTCR, x7=VTCR_OFF)
        else:
            rig.stop(MRS_PROD)
            rig.stop(MSR_PROD, x6=0)
            rig.stop(MSR_BR, x5=BUFFER | 1 << 60)  # the same one
            rig.stop(MSR_BR, x5=BUFFER | 2)
        rig.stop(MSR_BR, x5=0)
    # No guest was entered with the last buffer of the first turn.
    first = [Why.ANNOUNCED, Why.APPENDED, "drain", "flush", Why.ANNOUNCED, Why.WITHDRAWN,
             Why.ANNOUNCED]  # fmt: skip
    assert [why for why, _ in listener.told] == [*first, Why.ANNOUNCED, Why.WITHDRAWN]
    writes = [r[0] for r in rig.records(Kind.WRITE) if r[4] == BR]
    (append, *_), at = rig.records(Kind.APPEND), dict(listener.told[:6])
    assert at[Why.APPENDED].seq == append[0] + 1 and at[Why.APPENDED].pc == 0x1000_0000
    assert listener.told[0][1].seq == writes[0] + 1
    assert at[Why.WITHDRAWN].seq == writes[2] and at[Why.WITHDRAWN].hdbssbr == BUFFER
    assert listener.told[6][1].hdbssbr == BUFFER | 2
    rig.interceptor.close()
    rig.ram.close()

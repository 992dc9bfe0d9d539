# SPDX-License-Identifier: GPL-2.0-or-later
"""What software on a PE can see, where entries and INDEX become visible late.

With ``Visibility.DSB`` a PE holds entries back, ``OUTSTANDING_MAX`` at most, until a DSB or
a guest entry; a direct read of HDBSSPROD_EL2 shows the value of the last context
synchronization event, without what was outstanding then.
"""

from qemu_model.arch.registers import SysReg
from qemu_model.model.injection import What
from qemu_model.model.pe import OUTSTANDING_MAX
from qemu_model.trace import BARRIER_DSB, Kind, RawRecord

_PROD = int(SysReg.HDBSSPROD_EL2)


class Observer:
    """One PE, followed through its trace records in their order."""

    __slots__ = ("_uncounted", "hdbssprod", "outstanding", "visible")

    def __init__(self) -> None:
        self.hdbssprod = 0
        """HDBSSPROD_EL2 as hardware holds it."""
        self.visible = 0
        """HDBSSPROD_EL2 as a direct read shows it."""
        self.outstanding = 0
        """Entries that have not reached memory."""
        self._uncounted = 0

    def follow(self, record: RawRecord) -> None:
        """Take one more record of the PE."""
        _, kind, _, _, a, b, c, d, _, _ = record
        match kind:
            case Kind.APPEND:
                self.hdbssprod += 1
                self.outstanding = min(self.outstanding + 1, OUTSTANDING_MAX)
                self._uncounted = min(self._uncounted + 1, OUTSTANDING_MAX)
            case Kind.BARRIER if a == BARRIER_DSB:
                self.outstanding = self._uncounted = 0
            case Kind.BARRIER:
                self.visible = self.synchronized
            case Kind.EXIT:
                self.hdbssprod = d
                self.visible = self.synchronized
            case Kind.INJECT if a == What.INDEX:
                self.hdbssprod = self.visible = d
            case Kind.LATE:
                self.hdbssprod = a
            case Kind.ENTRY | Kind.RESET:
                self.outstanding = self._uncounted = 0
                self.hdbssprod = self.visible = b
            case Kind.WRITE if a == _PROD:
                self.hdbssprod = self.visible = c
                self._uncounted = 0

    @property
    def synchronized(self) -> int:
        """What a direct read shows after a context synchronization event now."""
        return self.hdbssprod - self._uncounted

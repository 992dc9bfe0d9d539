# SPDX-License-Identifier: GPL-2.0-or-later
"""VTCR_EL2.{HA,HD,HDBSS} as the TLB of a PE may have cached them (``Caching.LAZY``).

A translation may be cached with the VTCR_EL2 that it was made with (digest 2), so an old
value can be in effect until a TLBI.  Here a PE keeps the value with which it ran the guest
of a VMID first, for all of that guest's translations, until a TLBI of the whole VMID: of
all that is permitted, what asks most of software.  A TLBI of single IPAs is taken to leave
the others.  ``qemu_model/plugin/tlb.c`` does the same, slot for slot.
"""

from qemu_model.arch.registers import VTCR_HA, VTCR_HD, VTCR_HDBSS

SLOTS = 64
"""A VMID has the slot of its number modulo this; another one there makes room."""
CONTROL = VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask


class Tlb:
    """What one PE holds, by slot: the VMID and its control bits."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, int]] = {}

    def vtcr(self, vmid: int, register: int) -> int:
        """VTCR_EL2 as it is in effect for a VMID while the register holds ``register``.

        What was not cached is from now on.
        """
        held = self._held.get(vmid % SLOTS)
        if held is None or held[0] != vmid:
            self._held[vmid % SLOTS] = (vmid, register & CONTROL)
            return register
        return register & ~CONTROL | held[1]

    def invalidate(self, vmid: int | None) -> None:
        """Forget a VMID, or with None all of them."""
        if vmid is None:
            self._held.clear()
        elif self._held.get(vmid % SLOTS, (None,))[0] == vmid:
            del self._held[vmid % SLOTS]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Who reads under ``kvm->srcu``: how often it was taken, and whether it is held now.

Memory slots and their bitmaps are freed as soon as nobody is in a read-side critical
section of ``kvm->srcu``; who marks pages without one, or without ``kvm->slots_lock``, may
write to freed memory.  Each PE counts in its own ``struct srcu_data`` how often it has
entered and left one (kernel/rcu/srcutree.c).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.layout import LayoutError, Structures

CPUS_MAX = 4096
_WORD = (1 << 64) - 1
_MUTEX_FLAGS = 7
"""Bits of ``struct mutex.owner`` that are no part of the address of the task."""
_BYTES = 8
_HALVES = 2
"""Counters of one kind: readers use one of two, which of them changes with each grace period."""


@dataclass(frozen=True)
class SrcuMap:
    """Where the counters are: a virtual address, and offsets in bytes."""

    per_cpu: int
    """``__per_cpu_offset``: what is to be added for each CPU, 0 for those that are not there."""
    cpus: int
    data: int
    """Of ``kvm.srcu.sda`` in struct kvm: the per-CPU pointer to struct srcu_data."""
    locks: int
    unlocks: int
    """Of the first of two counters in struct srcu_data, and of the next one from it."""
    stride: int
    owner: int
    """Of ``kvm.slots_lock.owner`` in struct kvm."""


class Memory(Protocol):
    """Reads at virtual addresses; raises Unreadable."""

    def read(self, address: int, size: int) -> bytes:
        """So many bytes."""

    def number(self, address: int, size: int = 8) -> int:
        """A little-endian unsigned number of ``size`` bytes."""


def read_srcu_map(vmlinux: Vmlinux, structures: Structures) -> SrcuMap:
    """LayoutError with what is missing, as in a kernel for one CPU (Tiny SRCU)."""
    table = vmlinux.find("__per_cpu_offset")
    if table is None or not 0 < table.size // 8 <= CPUS_MAX:
        raise LayoutError(f"vmlinux {vmlinux.path}: it has no __per_cpu_offset")
    try:
        counters = structures.member("srcu_data.srcu_lock_count")
        locks = counters.offset
        unlocks = structures.offset("srcu_data.srcu_unlock_count")
        least = _BYTES
    except LayoutError:
        # In newer kernels the two stand side by side.
        counters = structures.member("srcu_data.srcu_ctrs")
        locks = counters.offset + structures.offset("srcu_ctr.srcu_locks")
        unlocks = counters.offset + structures.offset("srcu_ctr.srcu_unlocks")
        least = 2 * _BYTES
    owner = structures.member("kvm.slots_lock.owner")
    if counters.stride < least or counters.size != _HALVES * counters.stride or owner.size < _BYTES:
        raise LayoutError(f"vmlinux {vmlinux.path}: its srcu_data or mutex has another form")
    return SrcuMap(
        per_cpu=table.address,
        cpus=table.size // 8,
        data=structures.offset("kvm.srcu.sda"),
        locks=locks,
        unlocks=unlocks,
        stride=counters.stride,
        owner=owner.offset,
    )


@dataclass(frozen=True)
class Readers:
    """What the counters say at one moment."""

    taken: int
    """Times that ``kvm->srcu`` was taken since it was made, modulo 2^64."""
    held: int
    """Read-side critical sections under way."""
    locked: bool
    """Whether somebody holds ``kvm->slots_lock``."""


def read_readers(memory: Memory, where: SrcuMap, vm: int) -> Readers:
    """Read the counters of the struct kvm at ``vm``; raises Unreadable.

    The PEs run on: what was left is read before what was entered, so that a section may be
    taken for one that is under way, but none that is under way is missed.
    """
    offsets = struct.unpack(f"<{where.cpus}Q", memory.read(where.per_cpu, 8 * where.cpus))
    data = memory.number(vm + where.data)
    at = [
        (data + offset & _WORD) + half * where.stride
        for offset in offsets
        if offset
        for half in range(_HALVES)
    ]
    left = sum(memory.number(address + where.unlocks) for address in at)
    taken = sum(memory.number(address + where.locks) for address in at)
    locked = memory.number(vm + where.owner) & ~_MUTEX_FLAGS != 0
    return Readers(taken & _WORD, taken - left & _WORD, locked)


def count_readers(begun: Readers, ended: Readers) -> int:
    """Read-side critical sections that overlap the time between two moments.

    And one for each of the two at which ``slots_lock`` is held: who takes and releases it in
    between is not seen.
    """
    return begun.held + (ended.taken - begun.taken & _WORD) + begun.locked + ended.locked

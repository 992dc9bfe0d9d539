# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypervisors that break one invariant each: the random histories must find every one."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from qemu_model.arch.entry import Entry
from qemu_model.arch.registers import VTCR_HD, Hdbssprod, SysReg
from qemu_model.model.pe import PE, Completed
from tests.unit.model.test_stateful import IN_BLOCK, PAGES, START, VTCR_OFF, CorrectHypervisor


class NoDsb(CorrectHypervisor):
    """I2."""

    def barriers(self, pe: PE) -> None:
        pe.context_synchronize()


class NoIsb(CorrectHypervisor):
    """I2."""

    def barriers(self, pe: PE) -> None:
        pe.dsb()


class IsbFirst(CorrectHypervisor):
    """I2."""

    def barriers(self, pe: PE) -> None:
        pe.context_synchronize()
        pe.dsb()


class LastEntryLeftOut(CorrectHypervisor):
    """I1, I2."""

    def consume(self, number: int, prod: Hdbssprod) -> None:
        self.copy(number, prod, range(START, prod.index - 1))
        self.pes[number].write(SysReg.HDBSSPROD_EL2, START)


class ResetBeforeCopy(CorrectHypervisor):
    """I3: the guest goes on before the copy, and its entry takes the place of the first one."""

    def consume(self, number: int, prod: Hdbssprod) -> None:
        pe = self.pes[number]
        pe.write(SysReg.HDBSSPROD_EL2, START)
        if prod.index > START and isinstance(pe.store(PAGES[0]), Completed):
            self.changed.add((self.vm[number], PAGES[0]))
        self.copy(number, prod, range(START, prod.index))


class SwitchWithoutDrain(CorrectHypervisor):
    """I4."""

    def before_switch(self, number: int) -> None:
        pass


class FreedUndrained(CorrectHypervisor):
    """I5."""

    def withdraw(self, number: int) -> None:
        self.pes[number].write(SysReg.VTCR_EL2, VTCR_OFF)
        self.pes[number].tlb_invalidate(None)


class NoTlbi(CorrectHypervisor):
    """I5: VTCR_EL2 may be cached."""

    def withdraw(self, number: int) -> None:
        self.drain(number)
        self.pes[number].write(SysReg.VTCR_EL2, VTCR_OFF)


class HdbssOffHdOn(CorrectHypervisor):
    """I5: what hardware dirties without HDBSS nobody is told."""

    def withdraw(self, number: int) -> None:
        super().withdraw(number)
        self.pes[number].write(SysReg.VTCR_EL2, VTCR_OFF | VTCR_HD.mask)


class FscDropped(CorrectHypervisor):
    """I6."""

    def heed(self, prod: Hdbssprod) -> None:
        pass


class BlockAsPage(CorrectHypervisor):
    """I7."""

    def report(self, vm: int, entry: Entry) -> None:
        self.reported.add((vm, entry.ipa))


class NoDuplicates(CorrectHypervisor):
    """I8."""

    def report(self, vm: int, entry: Entry) -> None:
        assert entry.ipa in IN_BLOCK or (vm, entry.ipa) not in self.reported
        super().report(vm, entry)


_FOUND = settings(
    max_examples=3000,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "wrong",
    [
        NoDsb,
        NoIsb,
        IsbFirst,
        LastEntryLeftOut,
        ResetBeforeCopy,
        SwitchWithoutDrain,
        FreedUndrained,
        NoTlbi,
        HdbssOffHdOn,
        FscDropped,
        BlockAsPage,
        NoDuplicates,
    ],
)
def test_a_hypervisor_that_is_wrong_is_found(wrong: type[CorrectHypervisor]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(wrong, settings=_FOUND)

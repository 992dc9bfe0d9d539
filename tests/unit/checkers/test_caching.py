# SPDX-License-Identifier: GPL-2.0-or-later
"""VTCR_EL2 cached in TLBs: what the mirror accepts, and the TLBI that is missed."""

from dataclasses import replace

import pytest

from qemu_model.arch.registers import VTCR_HD, SysReg
from qemu_model.checkers.history import History
from qemu_model.checkers.mirror import check_trace
from qemu_model.checkers.programming import check, stale
from qemu_model.model.choices import BEST, Caching, Choices
from qemu_model.model.pe import Completed
from qemu_model.trace import Kind, RawRecord
from tests.unit.checkers.factory import (
    VTCR,
    VTCR_OFF,
    Event,
    entry,
    event,
    leave,
    make_run,
    make_trace,
)
from tests.unit.checkers.recorder import VTCR_ON, Recorder

IPA = 0x1_2345_6000
LAZY = Choices(caching=Caching.LAZY)
OFF = VTCR_ON & ~(1 << 45 | 1 << 22)
VMID = 7


class Lazy(Recorder):
    """PEs that have run the guest of one VMID with a VTCR_EL2."""

    def __init__(self, value: int, pes: int = 1) -> None:
        super().__init__(pes, LAZY)
        for page in range(4):
            self.map(IPA + page * 0x1000)
        for index, pe in enumerate(self.pes):
            pe.vttbr |= VMID << 48
            self.start(index, vtcr_value=value)
            self.exit(index)

    def enter(self, pe: int = 0) -> None:
        super().enter(pe)
        self.pes[pe].translate_anew()

    def again(self, value: int, pe: int = 0) -> None:
        self.write(pe, SysReg.VTCR_EL2, value)
        self.enter(pe)

    def tlbi(self, pe: int = 0, vmid: int | None = VMID, broadcast: bool = True) -> None:
        self.add(Kind.TLBI, pe, vmid is None, vmid or 0, broadcast, 0x1234)
        for index, other in enumerate(self.pes):
            if broadcast or index == pe:
                other.tlb_invalidate(vmid)
                if self.inside[index]:
                    other.translate_anew()


def rules(records: list[RawRecord], choices: Choices = LAZY) -> list[str]:
    return [divergence.rule for divergence in check_trace(records, choices)]


def test_an_append_through_an_old_translation() -> None:
    lazy = Lazy(VTCR_ON)
    lazy.again(OFF)
    lazy.store(IPA)
    lazy.exit()
    assert rules(lazy.end()) == []
    assert rules(lazy.records, BEST) != []


def test_a_refusal_through_an_old_translation() -> None:
    lazy = Lazy(VTCR_ON)
    lazy.write(0, SysReg.HDBSSPROD_EL2, 512)
    lazy.again(OFF)
    lazy.store(IPA)
    assert rules(lazy.end()) == []


@pytest.mark.parametrize(
    ("pe", "vmid", "broadcast", "gone"),
    [
        (0, VMID, False, True),
        (0, None, False, True),
        (1, VMID, True, True),
        (1, None, True, True),
        (1, VMID, False, False),
        (0, VMID + 1, True, False),
    ],
)
def test_whose_translations_go(pe: int, vmid: int | None, broadcast: bool, gone: bool) -> None:
    lazy = Lazy(OFF, pes=2)
    lazy.tlbi(pe, vmid, broadcast)
    lazy.again(VTCR_ON)
    assert isinstance(lazy.store(IPA), Completed) is gone
    assert rules(lazy.end()) == []


def test_a_tlbi_by_another_pe_reaches_a_guest_that_runs() -> None:
    lazy = Lazy(OFF, pes=2)
    lazy.again(VTCR_ON)
    lazy.tlbi(1)
    assert isinstance(lazy.store(IPA), Completed)
    assert rules(lazy.end()) == []
    # Without it there would have been no entry.
    without = [r for r in lazy.records if r[1] != Kind.TLBI]
    assert rules(without) != []


def test_a_reset_empties_the_tlb() -> None:
    lazy = Lazy(VTCR_ON)
    lazy.add(Kind.RESET, 0, 0, 0, 0)
    lazy.pes[0].tlb_invalidate(None)
    lazy.write(0, SysReg.HDBSSBR_EL2, 0)
    lazy.write(0, SysReg.HDBSSPROD_EL2, 0)
    lazy.again(OFF)
    lazy.exit()
    assert rules(lazy.end()) == []


def test_a_tlbi_is_recorded_only_where_it_matters() -> None:
    (rule,) = rules([*Lazy(VTCR_ON).end(), (99, int(Kind.TLBI), 0, 0, 0, 7, 1, 0, 0, 0)], BEST)
    assert "at-once" in rule


def tlbi(vmid: int = 0, *, all_: bool = False, broadcast: bool = True, pe: int = 0) -> Event:
    return event(Kind.TLBI, all_, vmid, broadcast, 0x1234, pe=pe)


def changed(*between: Event) -> list[Event]:
    """HDBSS is switched off between two entries of a guest on PE 0; PE 1 runs it too."""
    return [entry(), entry(pe=1), leave(), leave(pe=1), *between, entry(vtcr=VTCR_OFF)]


@pytest.mark.parametrize(
    "between", [[tlbi()], [tlbi(all_=True)], [tlbi(broadcast=False)], [tlbi(pe=1)]]
)
def test_a_vtcr_that_is_followed_by_a_tlbi(between: list[Event]) -> None:
    assert list(stale(make_trace(changed(*between)))) == []


@pytest.mark.parametrize("between", [[], [tlbi(8)], [tlbi(broadcast=False, pe=1)]])
def test_a_vtcr_that_is_not(between: list[Event]) -> None:
    (found,) = stale(make_trace(changed(*between)))
    assert found.checker == "programming"
    assert "HDBSS = 0, while translations with HD = 1, HDBSS = 1" in found.seen


def test_a_vtcr_that_is_switched_on_may_have_its_tlbi_later() -> None:
    """Until then writes to clean pages fault, as they did."""
    off = [entry(vtcr=VTCR_OFF), leave()]
    assert list(stale(make_trace([*off, entry(), leave(), tlbi(), entry()]))) == []
    # With HD = 1 hardware would dirty them, and tell nobody.
    silent = [entry(vtcr=VTCR_OFF | VTCR_HD.mask), leave(), entry()]
    assert len(list(stale(make_trace(silent)))) == 1


def test_the_same_vtcr_needs_no_tlbi() -> None:
    assert list(stale(make_trace([entry(), leave(), entry(), leave(), entry(vtcr=VTCR)]))) == []


def test_only_where_it_is_cached() -> None:
    run = make_run("vm 16\n", trace=[entry(), leave(), entry(vtcr=VTCR_OFF), leave()])
    assert check(run, History()) == []
    lazy = replace(run, about=replace(run.about, choices=LAZY))
    assert [found.rule.split()[0] for found in check(lazy, History())] == ["VTCR_EL2"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Random histories of two PEs, any software, any choices, any injections: the mirror agrees."""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from qemu_model.arch.registers import VTCR_HA, VTCR_HD, VTCR_HDBSS, SysReg
from qemu_model.checkers.mirror import check_trace
from qemu_model.gdbstub.pes import EmulatedPe, GuestAbort, Verdict
from qemu_model.model.choices import Caching, choose
from qemu_model.model.injection import Injector, parse
from qemu_model.trace import Kind, RawRecord, TraceWriter
from qemu_model.vmlinux.sites import Tlbi
from tests.unit.arch.tables import Ram, map_leaf
from tests.unit.gdbstub.test_pes import (
    AF,
    BLOCK,
    BUFFER,
    CLEAN,
    ELR,
    HCR,
    HEADER,
    HVC,
    IPA,
    OUTPUT,
    OUTSIDE,
    POOL,
    TABLES,
    VTCR_ON,
    WRITE,
    data_abort,
)

PES = 2
IN_BLOCK = IPA + 0x40_0000
PAGES = [*(IPA + page * 0x1000 for page in range(6)), IN_BLOCK, IN_BLOCK + 0x7000]
FSC = 0x10 << 26

when = st.integers(1, 5)
times = st.integers(1, 3)
at_appends = st.builds(
    "{},append={},times={}".format, st.sampled_from(["gpf", "cas-lost", "fill"]), when, times
)
aborts = st.builds(
    "abort,append={},times={},report={},late={},dirty={}".format,
    *(when, times, st.sampled_from(["fsc", "precise"]), st.integers(0, 3)),
    st.sampled_from(["yes", "no"]),
)
presets = st.builds(
    "index={},entry={},times={}".format, st.sampled_from(["0", "last", "full", "max"]), when, times
)
others = st.builds(
    "{},times={}".format, st.sampled_from(["s1ptw", "fetch", "unknown"]), st.integers(0, 3)
)
numbers = st.integers(0, PES - 1)


class AnyHistory(RuleBasedStateMachine):
    """What is done to the PEs makes no sense; their traces must be explained all the same."""

    @initialize(
        seed=st.integers(0, 10_000),
        injections=st.lists(at_appends | aborts | presets | others, max_size=3),
    )
    def start(self, seed: int, injections: list[str]) -> None:
        self.choices = choose("random", seed)
        self.records: list[RawRecord] = []
        trace = TraceWriter(Path(os.devnull), HEADER)
        trace.observer = self.records.append
        trace.write(Kind.BEGIN, 0, (1,))
        self.ram = Ram(holes=[range(0, 0x4000_0000), range(0x5000_0000, 1 << 56)])
        self.leaves = {}
        for place, ipa in enumerate(PAGES[:-1]):
            leaf = CLEAN & ~2 | BLOCK if ipa == IN_BLOCK else CLEAN
            leaf = (leaf | OUTPUT & -0x20_0000) & ~(AF if place % 2 else 0)
            level, pool = 2 if ipa == IN_BLOCK else 3, POOL + place * 0x10_000
            self.leaves[ipa] = map_leaf(self.ram, "4k", 1, TABLES, ipa, level, leaf, pool)
        injector = Injector(tuple(parse(text).settled(self.choices, seed) for text in injections))
        self.pes = [
            EmulatedPe(number, self.ram, trace, self.choices, injector) for number in range(PES)
        ]
        for pe in self.pes:
            pe.reset(0)

    def at_el2(self, number: int) -> EmulatedPe:
        pe = self.pes[number]
        if pe.in_guest:
            pe.leave(HVC, 0, 0, 0x480, ELR)
        return pe

    @rule(number=numbers, sz=st.sampled_from([0, 0, 0, 1, 9, 12]), outside=st.integers(0, 5))
    def set_buffer(self, number: int, sz: int, outside: int) -> None:
        buffer = BUFFER + number * 0x40_0000 if outside else OUTSIDE
        self.at_el2(number).write(SysReg.HDBSSBR_EL2, buffer | sz, 1)

    @rule(
        number=numbers, prod=st.sampled_from([0, 0, 0, 508, 511, 512, 1023, FSC | 3, (1 << 64) - 1])
    )
    def set_index(self, number: int, prod: int) -> None:
        self.at_el2(number).write(SysReg.HDBSSPROD_EL2, prod, 1)

    @rule(
        number=numbers, off=st.sampled_from([0, 0, 0, VTCR_HDBSS.mask, VTCR_HD.mask, VTCR_HA.mask])
    )
    def set_control(self, number: int, off: int) -> None:
        self.at_el2(number).write(SysReg.VTCR_EL2, VTCR_ON & ~off, 1)

    @rule(
        number=numbers,
        sz=st.sampled_from([0, 0, 1, 12]),
        prod=st.sampled_from([0, 0, 509]),
        vmid=st.sampled_from([1, 65]),
    )
    def load(self, number: int, sz: int, prod: int, vmid: int) -> None:
        """All at once, so that something happens."""
        pe = self.at_el2(number)
        pe.write(SysReg.HDBSSBR_EL2, BUFFER + number * 0x40_0000 | sz, 1)
        pe.write(SysReg.HDBSSPROD_EL2, prod, 1)
        pe.write(SysReg.VTCR_EL2, VTCR_ON, 1)
        pe.enter(vmid << 48 | TABLES, HCR, ELR)

    @rule(number=numbers)
    def read(self, number: int) -> None:
        pe = self.at_el2(number)
        pe.deliver(SysReg.HDBSSPROD_EL2, pe.model.read(SysReg.HDBSSPROD_EL2), 1)

    @rule(number=numbers, dsb=st.booleans())
    def barrier(self, number: int, dsb: bool) -> None:
        pe = self.at_el2(number)
        if dsb:
            pe.dsb(1)
        else:
            pe.isb(1)

    @precondition(lambda self: self.choices.caching is Caching.LAZY)
    @rule(number=numbers, of_all=st.booleans(), broadcast=st.booleans())
    def tlbi(self, number: int, of_all: bool, broadcast: bool) -> None:
        pe = self.at_el2(number)
        pe.tlbi(Tlbi(of_all, broadcast), 1, 1)
        for other in self.pes if broadcast else [pe]:
            other.forget(None if of_all else 1)

    @rule(number=numbers)
    def reset(self, number: int) -> None:
        self.pes[number].reset(0)

    @rule()
    def clean(self) -> None:
        for pa in self.leaves.values():
            self.ram.words[pa] &= ~WRITE

    @rule(number=numbers, vmid=st.sampled_from([1, 1, 2, 65]))
    def enter(self, number: int, vmid: int) -> None:
        self.at_el2(number).enter(vmid << 48 | TABLES, HCR, ELR)

    @rule(
        number=numbers,
        ipas=st.lists(st.sampled_from(PAGES), min_size=1, max_size=4),
        s1ptw=st.booleans(),
        race=st.none() | st.sampled_from(PAGES[:-1]),
    )
    def store(self, number: int, ipas: list[int], s1ptw: bool, race: int | None) -> None:
        pe = self.pes[number]
        if not pe.in_guest:
            pe.enter(1 << 48 | TABLES, HCR, ELR)
        if race is not None:
            pa = self.leaves[race]
            self.ram.race[pa] = self.ram.words[pa] ^ 1 << 55
        for ipa in ipas:
            self._store(pe, GuestAbort(data_abort(s1ptw=s1ptw), ipa >> 8, ipa, ELR))
        self.ram.race.clear()

    def _store(self, pe: EmulatedPe, abort: GuestAbort) -> None:
        verdict = pe.abort(abort) if pe.in_guest and pe.hides_hd else Verdict.RETRY
        if verdict is not Verdict.RETRY:
            esr = abort.esr if pe.refused is None else pe.refused[1]
            pe.leave(esr, abort.far, abort.hpfar, 0x400, ELR)

    def teardown(self) -> None:
        if hasattr(self, "records"):
            assert [d.rule + d.seen for d in check_trace(self.records, self.choices)] == []


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

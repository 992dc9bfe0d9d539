# SPDX-License-Identifier: GPL-2.0-or-later
"""Random histories: a correct hypervisor loses nothing, and every trace is explained."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from qemu_model.arch.entry import Entry
from qemu_model.arch.registers import (
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    Hdbssbr,
    Hdbssprod,
    ProdFsc,
    SysReg,
)
from qemu_model.arch.stage2 import Granule
from qemu_model.checkers.mirror import check_trace
from qemu_model.model.choices import Choices, Report, Visibility
from qemu_model.model.pe import PE, Aborted, Access, Completed
from tests.unit.arch.tables import BLOCK, Ram, map_leaf
from tests.unit.checkers.recorder import (
    AF,
    BASE,
    BUFFER,
    BUFFER_STEP,
    CLEAN,
    DBM,
    POOL,
    READ,
    VTCR_ON,
    WRITE,
    Recorder,
)

PES = 2
PAGES = [0x1_2345_6000 + page * 0x1000 for page in range(7)]
IN_BLOCK = [0x8040_0000 + page * 0x1000 for page in (0, 7, 511)]
ALL = PAGES + IN_BLOCK
START = 508
"""INDEX after a drain: leaves four slots of the 512, so that buffers fill up soon."""
CANARY = 0xCA7

any_choices = st.builds(
    Choices,
    zero_ahead=st.integers(0, 5),
    failed_cas_dirties=st.booleans(),
    unreadable_atomic_dirties=st.booleans(),
    lost_cas_keeps_entry=st.booleans(),
    external_abort=st.sampled_from(Report),
    gpf=st.sampled_from(Report),
    dirty_after_external_abort=st.booleans(),
    aborted_update_keeps_entry=st.booleans(),
    fsc_delay=st.integers(0, 2),
    visibility=st.sampled_from(Visibility),
    af_with_refusal=st.booleans(),
)
pe_numbers = st.integers(0, PES - 1)


class CorrectHypervisor(RuleBasedStateMachine):
    """Two PEs with any permitted choices under software that follows I2 to I7.

    The oracle knows only which stores were completed: each such page must be reported
    by the next collection (I1), or an HDBSS fault must have told to report all (I6).
    """

    def __init__(self) -> None:
        super().__init__()
        self.ram = Ram()
        self.leaves: dict[int, int] = {}
        for place, ipa in enumerate([*PAGES, IN_BLOCK[0]]):
            block = ipa in IN_BLOCK
            leaf = (CLEAN & ~2 | BLOCK if block else CLEAN) | 0x40_0000_0000
            leaf &= ~AF if place % 2 else ~0
            level, pool = (2, POOL) if block else (3, POOL)
            pool += place * 0x10_000
            self.leaves[ipa] = map_leaf(self.ram, "4k", 1, BASE, ipa, level, leaf, pool)
        self.changed: set[int] = set()
        self.reported: set[int] = set()
        self.all_dirty = False

    @initialize(choices=any_choices)
    def start(self, choices: Choices) -> None:
        self.pes = []
        for number in range(PES):
            pe = PE(self.ram, choices)
            buffer = BUFFER + number * BUFFER_STEP
            self.ram.words[buffer - 8] = self.ram.words[buffer + 4096] = CANARY
            pe.write(SysReg.HDBSSBR_EL2, buffer)
            pe.write(SysReg.HDBSSPROD_EL2, START)
            pe.write(SysReg.VTCR_EL2, VTCR_ON)
            pe.write(SysReg.VTTBR_EL2, BASE)
            pe.write(SysReg.HCR_EL2, 1)
            self.pes.append(pe)

    @rule(
        number=pe_numbers,
        ipa=st.sampled_from(ALL),
        kind=st.sampled_from([Access.WRITE, Access.WRITE, Access.ATOMIC, Access.STAGE1_UPDATE]),
    )
    def write(self, number: int, ipa: int, kind: Access) -> None:
        for _ in range(2):
            outcome = self.pes[number].access(ipa, kind)
            if isinstance(outcome, Completed):
                self.changed.add(ipa)
                return
            self.told(outcome)
            self.drain(number)
        # A persistent fault may stop the guest; it must have said so.
        assert self.all_dirty

    @rule(
        number=pe_numbers,
        ipa=st.sampled_from(ALL),
        kind=st.sampled_from([Access.READ, Access.FETCH, Access.FAILED_CAS, Access.PROBE_WRITE]),
    )
    def do_not_write(self, number: int, ipa: int, kind: Access) -> None:
        outcome = self.pes[number].access(ipa, kind)
        if isinstance(outcome, Aborted):
            self.told(outcome)
            # Nothing but a failed compare-and-swap is refused; the access flag update of
            # any of them can meet a broken descriptor.
            assert kind is Access.FAILED_CAS or not outcome.abort.hdbssf
            self.drain(number)

    def told(self, outcome: Aborted) -> None:
        """Handle an abort: only HDBSS and injected faults can be the reason here."""
        if outcome.refused:
            assert outcome.abort.hdbssf
        else:
            self.all_dirty = True

    @rule(number=pe_numbers, fault=st.sampled_from([ProdFsc.EXTERNAL_ABORT, ProdFsc.GPF]))
    def break_next_slot(self, number: int, fault: ProdFsc) -> None:
        self.ram.write_fault[self.pes[number].producer.slot()] = fault

    @rule(ipa=st.sampled_from(sorted(PAGES)), bit=st.sampled_from([55, 56, 57]))
    def race(self, ipa: int, bit: int) -> None:
        """Another agent changes a software bit just before the next update."""
        pa = self.leaves[ipa]
        self.ram.race[pa] = self.ram.words[pa] ^ 1 << bit

    @rule(ipa=st.sampled_from(sorted(PAGES)), aborts=st.booleans())
    def break_descriptor(self, ipa: int, aborts: bool) -> None:
        if aborts:
            self.ram.swap_aborts.add(self.leaves[ipa])
        else:
            self.ram.swap_aborts.clear()

    @rule(number=pe_numbers)
    def drain(self, number: int) -> None:
        """Exit, DSB, ISB, read, copy, reset: the safe order of the digest's section 10."""
        pe = self.pes[number]
        pe.dsb()
        pe.context_synchronize()
        prod = Hdbssprod(pe.read(SysReg.HDBSSPROD_EL2))
        if prod.fsc:
            self.all_dirty = True
        buffer = Hdbssbr(pe.read(SysReg.HDBSSBR_EL2))
        for index in range(START, prod.index):
            entry = Entry.decode(self.ram.words.get(buffer.slot(index), 0))
            assert entry.valid or prod.fsc
            if entry.valid:
                dirty = entry.dirty_range(Granule.KB4)
                self.reported.update(ipa for ipa in ALL if ipa in dirty)
        pe.write(SysReg.HDBSSPROD_EL2, START)
        self.ram.write_fault.clear()

    @rule()
    def collect(self) -> None:
        """Read the log: drain everybody, clean what is reported, compare with the truth."""
        for number in range(PES):
            self.drain(number)
        if self.all_dirty:
            self.reported.update(ALL)
        assert self.changed <= self.reported
        for ipa, pa in self.leaves.items():
            if ipa in self.reported or (ipa in IN_BLOCK and self.reported & set(IN_BLOCK)):
                self.ram.words[pa] &= ~WRITE
            else:
                assert not self.ram.words[pa] & WRITE
        self.ram.race.clear()
        self.changed.clear()
        self.reported.clear()
        self.all_dirty = False

    @invariant()
    def hardware_stays_in_its_bounds(self) -> None:
        for pa in self.leaves.values():
            descriptor = self.ram.words[pa]
            assert descriptor & AF or not descriptor & WRITE
        for number in range(PES):
            buffer = BUFFER + number * BUFFER_STEP
            assert self.ram.words.get(buffer - 8, CANARY) == CANARY
            assert self.ram.words.get(buffer + 4096, CANARY) == CANARY

    @precondition(lambda self: hasattr(self, "pes"))
    @invariant()
    def index_never_passes_the_capacity(self) -> None:
        for pe in self.pes:
            assert START <= pe.producer.index <= 512


class AnySoftware(RuleBasedStateMachine):
    """Registers written at random: what the PEs do is what the mirror expects.

    Only choices that a trace shows, and faults in FSC form, which the interceptors use.
    """

    @initialize(
        zero_ahead=st.integers(0, 3), cas=st.booleans(), keeps=st.booleans(), af=st.booleans()
    )
    def start(self, zero_ahead: int, cas: bool, keeps: bool, af: bool) -> None:
        choices = Choices(
            zero_ahead=zero_ahead,
            failed_cas_dirties=cas,
            lost_cas_keeps_entry=keeps,
            af_with_refusal=af,
        )
        self.recorder = Recorder(PES, choices)
        self.leaves = {ipa: self.recorder.map(ipa) for ipa in PAGES}
        self.leaves[IN_BLOCK[0]] = self.recorder.map(IN_BLOCK[0], CLEAN & ~2 | BLOCK, level=2)

    def at_el2(self, number: int) -> None:
        if self.recorder.inside[number]:
            self.recorder.exit(number, vector=0x480)

    @rule(
        number=pe_numbers,
        register=st.sampled_from([SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2]),
        value=st.integers(0, 2**64 - 1),
    )
    def write_anything(self, number: int, register: SysReg, value: int) -> None:
        self.at_el2(number)
        self.recorder.write(number, register, value)
        read = self.recorder.read(number, register)
        res0 = 0xFF00_0000_0000_0FF0 if register == SysReg.HDBSSBR_EL2 else 0xFFFF_FFFF_03F8_0000
        assert read == value & ~res0

    @rule(number=pe_numbers, sz=st.integers(0, 11), index=st.integers(-2, 1))
    def write_near_full(self, number: int, sz: int, index: int) -> None:
        self.at_el2(number)
        self.recorder.write(number, SysReg.HDBSSBR_EL2, BUFFER + number * BUFFER_STEP | sz)
        self.recorder.write(number, SysReg.HDBSSPROD_EL2, (512 << min(sz, 9)) + index)

    @rule(number=pe_numbers, ha=st.booleans(), hd=st.booleans(), hdbss=st.booleans())
    def write_enables(self, number: int, ha: bool, hd: bool, hdbss: bool) -> None:
        self.at_el2(number)
        value = VTCR_ON & ~(VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask)
        for field, on in ((VTCR_HA, ha), (VTCR_HD, hd), (VTCR_HDBSS, hdbss)):
            value |= field.mask if on else 0
        self.recorder.write(number, SysReg.VTCR_EL2, value)
        assert self.recorder.read(number, SysReg.VTCR_EL2) == value

    @rule(number=pe_numbers)
    def set_up(self, number: int) -> None:
        self.at_el2(number)
        self.recorder.start(number)

    @rule(
        number=pe_numbers,
        ipa=st.sampled_from(ALL),
        kind=st.sampled_from([Access.WRITE, Access.WRITE, Access.READ, Access.FAILED_CAS]),
    )
    def access(self, number: int, ipa: int, kind: Access) -> None:
        recorder = self.recorder
        if not recorder.inside[number]:
            recorder.enter(number)
        producer = recorder.pes[number].producer
        leaf = self.leaves.get(ipa, self.leaves[IN_BLOCK[0]])
        before, index, on = recorder.ram.words[leaf], producer.index, producer.enabled
        room = producer.can_append() and not producer.sz_reserved
        recorder.ram.race.pop(leaf, None)
        outcome = recorder.access(ipa, kind, number)
        after = recorder.ram.words[leaf]
        if before & WRITE or not before & DBM or kind is Access.READ or not on:
            assert producer.index == index
        if on and not room:
            assert not (after & ~before & WRITE)
        if on and room and kind is Access.WRITE and before & (DBM | WRITE) == DBM:
            assert isinstance(outcome, Completed)
            assert producer.index == index + 1

    @rule(ipa=st.sampled_from(PAGES), state=st.sampled_from([DBM, WRITE, DBM | WRITE, 0]))
    def software_sets_the_leaf(self, ipa: int, state: int) -> None:
        words, pa = self.recorder.ram.words, self.leaves[ipa]
        words[pa] = words[pa] & ~(DBM | WRITE) | state | READ | AF

    @rule(number=pe_numbers, ipa=st.sampled_from(PAGES))
    def lose_a_race(self, number: int, ipa: int) -> None:
        """Another agent wins the descriptor of a store; the trace must still be right."""
        if not self.recorder.inside[number]:
            self.recorder.enter(number)
        pa = self.leaves[ipa]
        self.recorder.ram.race[pa] = self.recorder.ram.words[pa] ^ 1 << 55
        self.recorder.store(ipa, number)
        self.recorder.ram.race.clear()

    def teardown(self) -> None:
        if hasattr(self, "recorder"):
            assert check_trace(self.recorder.end()) == []


_SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCorrectHypervisor = CorrectHypervisor.TestCase
TestCorrectHypervisor.settings = _SETTINGS
TestAnySoftware = AnySoftware.TestCase
TestAnySoftware.settings = _SETTINGS

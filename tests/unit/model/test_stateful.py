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
from qemu_model.arch.syndrome import Kind as FaultKind
from qemu_model.checkers.mirror import check_trace
from qemu_model.model.choices import Caching, Choices, Report, Visibility
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
TABLES = [BASE, BASE + 0x800_0000]
"""One for each VM."""
VTCR_OFF = VTCR_ON & ~(VTCR_HD.mask | VTCR_HDBSS.mask)

Page = tuple[int, int]
"""A VM and an IPA."""

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
    caching=st.sampled_from(Caching),
)
pe_numbers = st.integers(0, PES - 1)
vms = st.integers(0, len(TABLES) - 1)


def buffer_of(number: int) -> int:
    return BUFFER + number * BUFFER_STEP


def slots_of(number: int) -> range:
    """The slots that are used."""
    return range(buffer_of(number) + 8 * START, buffer_of(number) + 4096, 8)


class CorrectHypervisor(RuleBasedStateMachine):
    """Two PEs with any permitted choices, and two VMs, under software that follows I2 to I8.

    The oracle knows only which stores were completed, those of stage 1 walks among them (I9):
    each such page must be reported by the next collection (I1), or an HDBSS fault must have
    told to report all (I6).  What software does right is in methods of its own, so that
    ``test_wrong_hypervisors`` can do it wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ram = Ram()
        self.leaves: dict[Page, int] = {}
        for vm, base in enumerate(TABLES):
            for place, ipa in enumerate([*PAGES, IN_BLOCK[0]]):
                block = ipa in IN_BLOCK
                leaf = (CLEAN & ~2 | BLOCK if block else CLEAN) | 0x40_0000_0000
                leaf &= ~AF if place % 2 else ~0
                level, pool = (2, POOL) if block else (3, POOL)
                pool += vm * 0x100_0000 + place * 0x10_000
                self.leaves[vm, ipa] = map_leaf(self.ram, "4k", 1, base, ipa, level, leaf, pool)
        self.changed: set[Page] = set()
        self.reported: set[Page] = set()
        self.all_dirty = False
        self.vm = [0] * PES
        self.on = [True] * PES

    @initialize(choices=any_choices)
    def start(self, choices: Choices) -> None:
        self.pes = []
        for number in range(PES):
            pe = PE(self.ram, choices)
            self.ram.words[buffer_of(number) - 8] = CANARY
            self.ram.words[buffer_of(number) + 4096] = CANARY
            pe.write(SysReg.HCR_EL2, 1)
            self.pes.append(pe)
            self.enter_vm(number, 0)
            self.give_buffer(number)

    # --- what software has to do right ------------------------------------------

    def barriers(self, pe: PE) -> None:
        """I2: entries are observable after a DSB, INDEX after an ISB that follows it."""
        pe.dsb()
        pe.context_synchronize()

    def heed(self, prod: Hdbssprod) -> None:
        """I6: where the write of an entry failed, everything may be dirty."""
        if prod.fsc:
            self.all_dirty = True

    def consume(self, number: int, prod: Hdbssprod) -> None:
        """I2, I3: all slots below INDEX, none above it."""
        self.copy(number, prod, range(START, prod.index))
        self.pes[number].write(SysReg.HDBSSPROD_EL2, START)

    def copy(self, number: int, prod: Hdbssprod, slots: range) -> None:
        buffer = Hdbssbr(self.pes[number].read(SysReg.HDBSSBR_EL2))
        for index in slots:
            entry = Entry.decode(self.ram.words.get(buffer.slot(index), 0))
            assert entry.valid or prod.fsc
            if entry.valid:
                self.report(self.vm[number], entry)

    def report(self, vm: int, entry: Entry) -> None:
        """I7, I8: all of a block, and what has been reported before or has not changed."""
        dirty = entry.dirty_range(Granule.KB4)
        self.reported.update((vm, ipa) for ipa in ALL if ipa in dirty)

    def before_switch(self, number: int) -> None:
        """I4: what is in the buffer belongs to the VM that was there."""
        self.drain(number)

    def withdraw(self, number: int) -> None:
        """I5: nothing is written to the buffer after this."""
        self.drain(number)
        self.pes[number].write(SysReg.VTCR_EL2, VTCR_OFF)
        self.pes[number].tlb_invalidate(None)

    # --- the same for everybody ---------------------------------------------------

    def enter_vm(self, number: int, vm: int) -> None:
        self.vm[number] = vm
        self.pes[number].write(SysReg.VTTBR_EL2, vm + 1 << 48 | TABLES[vm])
        self.pes[number].enter_guest()

    def give_buffer(self, number: int) -> None:
        pe = self.pes[number]
        self.ram.words.update(dict.fromkeys(slots_of(number), 0))
        pe.write(SysReg.HDBSSBR_EL2, buffer_of(number))
        pe.write(SysReg.HDBSSPROD_EL2, START)
        pe.write(SysReg.VTCR_EL2, VTCR_ON)
        pe.tlb_invalidate(None)
        pe.enter_guest()
        self.on[number] = True

    @rule(number=pe_numbers, vm=vms)
    def switch(self, number: int, vm: int) -> None:
        self.before_switch(number)
        self.enter_vm(number, vm)

    @rule(number=pe_numbers)
    def switch_hdbss(self, number: int) -> None:
        """Off, with the buffer given to somebody else; or on again."""
        if self.on[number]:
            self.withdraw(number)
            self.ram.words.update(dict.fromkeys(slots_of(number), CANARY))
            self.on[number] = False
            self.pes[number].enter_guest()
        else:
            self.give_buffer(number)

    @rule(
        number=pe_numbers,
        ipas=st.lists(st.sampled_from(ALL), min_size=1, max_size=6),
        kind=st.sampled_from([Access.WRITE, Access.WRITE, Access.ATOMIC, Access.STAGE1_UPDATE]),
    )
    def write(self, number: int, ipas: list[int], kind: Access) -> None:
        for ipa in ipas:
            self.write_one(number, ipa, kind)

    def write_one(self, number: int, ipa: int, kind: Access) -> None:
        for _ in range(2):
            outcome = self.pes[number].access(ipa, kind)
            if isinstance(outcome, Completed):
                self.changed.add((self.vm[number], ipa))
                return
            self.told(number, ipa, outcome)
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
            self.told(number, ipa, outcome)
            # Nothing but a failed compare-and-swap is refused; the access flag update of
            # any of them can meet a broken descriptor.
            assert kind is Access.FAILED_CAS or not outcome.abort.hdbssf
            self.drain(number)

    def told(self, number: int, ipa: int, outcome: Aborted) -> None:
        """Handle an abort: HDBSS, injected faults, and without HDBSS what is write protected."""
        if outcome.refused:
            assert outcome.abort.hdbssf and self.on[number]
        elif outcome.abort.kind is FaultKind.PERMISSION:
            assert not outcome.abort.hdbssf and not self.on[number]
            vm, block = self.vm[number], ipa in IN_BLOCK
            pa = self.leaves[vm, IN_BLOCK[0] if block else ipa]
            self.ram.race.pop(pa, None)
            self.ram.words[pa] |= WRITE | AF
            self.reported.update((vm, page) for page in (IN_BLOCK if block else [ipa]))
        else:
            self.all_dirty = True

    @rule(number=pe_numbers, fault=st.sampled_from([ProdFsc.EXTERNAL_ABORT, ProdFsc.GPF]))
    def break_next_slot(self, number: int, fault: ProdFsc) -> None:
        self.ram.write_fault[self.pes[number].producer.slot()] = fault

    @rule(vm=vms, ipa=st.sampled_from(sorted(PAGES)), bit=st.sampled_from([55, 56, 57]))
    def race(self, vm: int, ipa: int, bit: int) -> None:
        """Another agent changes a software bit just before the next update."""
        pa = self.leaves[vm, ipa]
        self.ram.race[pa] = self.ram.words[pa] ^ 1 << bit

    @rule(vm=vms, ipa=st.sampled_from(sorted(PAGES)), aborts=st.booleans())
    def break_descriptor(self, vm: int, ipa: int, aborts: bool) -> None:
        if aborts:
            self.ram.swap_aborts.add(self.leaves[vm, ipa])
        else:
            self.ram.swap_aborts.clear()

    @rule(number=pe_numbers)
    def drain(self, number: int) -> None:
        """Exit, DSB, ISB, read, copy, reset: the safe order of the digest's section 10."""
        pe = self.pes[number]
        self.barriers(pe)
        prod = Hdbssprod(pe.read(SysReg.HDBSSPROD_EL2))
        self.heed(prod)
        self.consume(number, prod)
        self.ram.write_fault.clear()

    @rule()
    def collect(self) -> None:
        """Read the log: drain everybody, clean what is reported, compare with the truth."""
        for number in range(PES):
            self.drain(number)
        if self.all_dirty:
            self.reported.update((vm, ipa) for vm in range(len(TABLES)) for ipa in ALL)
        assert self.changed <= self.reported
        for (vm, ipa), pa in self.leaves.items():
            pages = IN_BLOCK if ipa in IN_BLOCK else [ipa]
            if any((vm, page) in self.reported for page in pages):
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
            around = (buffer_of(number) - 8, buffer_of(number) + 4096)
            for pa in around if self.on[number] else (*around, *slots_of(number)):
                assert self.ram.words.get(pa, CANARY) == CANARY

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

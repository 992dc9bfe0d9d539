# SPDX-License-Identifier: GPL-2.0-or-later
"""Did software have the barriers before it took what the PE had appended?

Asked of runs with ``visibility=dsb``.  Reading INDEX or slots too early is no harm by
itself; resetting INDEX is, while entries are outstanding or INDEX had not been shown, or if
the last read of it since the guest exit delivered less.  (Who was told by HDBSSF that the
buffer is full need not read it.)  ``lost`` says which pages that costs, this says why.
"""

from collections.abc import Iterable, Iterator

from qemu_model.arch.registers import HDBSSPROD_INDEX, SysReg
from qemu_model.arch.syndrome import HDBSSF
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.observer import Observer
from qemu_model.checkers.programming import first_of_each
from qemu_model.checkers.replay import SYNCHRONOUS
from qemu_model.model.choices import Visibility
from qemu_model.run import Run
from qemu_model.trace import Kind, RawRecord, describe

_PROD = int(SysReg.HDBSSPROD_EL2)


def check(run: Run, history: History) -> list[Divergence]:
    """The first violation of each rule."""
    if run.trace is None or run.about.choices.visibility is not Visibility.DSB:
        return []
    return first_of_each(violations(run.trace))


def violations(records: Iterable[RawRecord]) -> Iterator[Divergence]:
    """Yield each reset of INDEX that forgets what could not be seen."""
    observers: dict[int, Observer] = {}
    exits: dict[int, RawRecord] = {}
    read: dict[int, int] = {}
    """By PE: what the last MRS of INDEX since the guest exit has delivered."""
    for record in records:
        pe = record[2]
        observer = observers.setdefault(pe, Observer())
        if record[1] == Kind.EXIT:
            exits[pe] = record
            read.pop(pe, None)
        elif record[1] == Kind.READ and record[4] == _PROD:
            read[pe] = HDBSSPROD_INDEX.get(record[5])
        elif record[1] == Kind.WRITE and record[4] == _PROD:
            index = HDBSSPROD_INDEX.get(observer.hdbssprod)
            visible = HDBSSPROD_INDEX.get(observer.visible)
            seen = read.pop(pe, visible)
            if HDBSSPROD_INDEX.get(record[6]) < index and pe in exits:
                shown = (describe(exits[pe]), describe(record))
                if observer.outstanding:
                    yield Divergence(
                        checker="barriers",
                        summary=f"PE {pe} reset INDEX while {observer.outstanding} of {index} "
                        "entries were not observable",
                        rule="R_CGCHP (HDBSS writes are observable after a DSB for loads and "
                        "stores)",
                        required="a DSB between the guest exit and the reset of INDEX",
                        seen="none",
                        records=shown,
                    )
                elif visible != index or (seen < index and not _told_full(exits[pe])):
                    yield Divergence(
                        checker="barriers",
                        summary=f"PE {pe} reset INDEX, which was {index}, without having seen it",
                        rule="I_XXFYP (INDEX takes a context synchronization event after the DSB)",
                        required="an ISB between the DSB and the read of HDBSSPROD_EL2",
                        seen=f"a read shows {visible}"
                        if visible != index
                        else f"the last read before both has shown {seen}",
                        records=shown,
                    )
        observer.follow(record)


def _told_full(exit_record: RawRecord) -> bool:
    return bool(exit_record[4] & HDBSSF.mask) and exit_record[8] in SYNCHRONOUS

# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the guest get on after a refusal?

A refused access is retried.  When the same PE is refused again and its buffer is as
full as before, nobody has emptied it: the guest lives on slow faults or not at all.
"""

from collections.abc import Iterator

from qemu_model.arch.registers import SysReg
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.programming import first_of_each
from qemu_model.run import Run
from qemu_model.trace import Kind, RawRecord, Trace, describe


def check(run: Run, history: History) -> list[Divergence]:
    """The first refusal that repeats with the same registers."""
    return [] if run.trace is None else first_of_each(repeats(run.trace))


def repeats(trace: Trace) -> Iterator[Divergence]:
    """Yield each refusal that follows another one on its PE with HDBSSPROD_EL2 untouched."""
    refused: dict[int, RawRecord] = {}
    for record in trace.of(Kind.REFUSE, Kind.WRITE, Kind.RESET):
        kind, pe = record[1], record[2]
        if kind == Kind.REFUSE:
            before = refused.get(pe)
            if before is not None and before[6] == record[6] and before[9] == record[9]:
                yield Divergence(
                    checker="liveness",
                    summary=f"PE {pe} was refused again with its buffer as full as before",
                    rule="R_STJMN (refusals go on until INDEX leaves the capacity and FSC is 0)",
                    required="another HDBSSPROD_EL2 between two refusals of one PE",
                    seen=f"HDBSSPROD_EL2 = {record[6]:#x} at both",
                    records=(describe(before), describe(record)),
                )
            refused[pe] = record
        elif pe in refused and _changes(record, refused[pe]):
            del refused[pe]


def _changes(record: RawRecord, refusal: RawRecord) -> bool:
    """Whether the PE's INDEX or FSC is another one than at the refusal."""
    written = record[1] == Kind.WRITE and record[4] == SysReg.HDBSSPROD_EL2
    return record[1] == Kind.RESET or (written and record[6] != refusal[6])

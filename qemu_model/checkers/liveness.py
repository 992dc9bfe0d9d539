# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the guest get on after a refusal?

A refused access is retried.  When the same PE is refused again and its buffer is as
full as before, nobody has emptied it: the guest lives on slow faults or not at all.  An
INDEX that was put aside, as for another vCPU, and is back has emptied nothing.
"""

from collections.abc import Iterator

from qemu_model.arch.registers import SysReg, hdbss_bytes
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.programming import first_of_each
from qemu_model.run import Run
from qemu_model.trace import Kind, RawRecord, Trace, describe


def check(run: Run, history: History) -> list[Divergence]:
    """The first refusal that repeats with the same registers."""
    return [] if run.trace is None else first_of_each(repeats(run.trace))


def repeats(trace: Trace) -> Iterator[Divergence]:
    """Yield each refusal that follows another one on its PE with HDBSSPROD_EL2 as it was."""
    refused: dict[int, RawRecord] = {}
    aside: dict[int, tuple[RawRecord, int]] = {}
    """By PE: the refusal whose INDEX was written over and not written back yet, and where."""
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
            aside.pop(pe, None)
        elif kind == Kind.RESET:
            refused.pop(pe, None)
            aside.pop(pe, None)
        elif record[4] == SysReg.HDBSSPROD_EL2:
            if pe in refused and record[6] != refused[pe][6]:
                aside[pe] = refused.pop(pe), record[0]
            elif pe in aside and record[6] == aside[pe][0][6]:
                before, since = aside.pop(pe)
                if not _appended(trace, before[9], since, record[0]):
                    refused[pe] = before


def _appended(trace: Trace, hdbssbr: int, first: int, last: int) -> bool:
    """Whether something was appended to a buffer between two records: it was emptied meanwhile.

    On any PE: the vCPU that has it may have been elsewhere.
    """
    buffer = hdbss_bytes(hdbssbr)
    records = (trace.record(seq) for seq in range(first + 1, last))
    return any(record[1] == Kind.APPEND and record[6] in buffer for record in records)

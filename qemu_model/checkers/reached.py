# SPDX-License-Identifier: GPL-2.0-or-later
"""Did the run get to what its scenario is for?

A scenario that never fills the buffer proves nothing about full buffers, and a kernel
that takes the capability and then does not use it must not look right.
"""

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.run import Run

_SAYS = {
    "entries": "the PEs appended {} entries",
    "refusals": "the PEs refused {} accesses",
    "levels": "entries are for leaves of level {} (negative: of so many levels)",
    "lateness": "pages were reported up to {} reads of the log too late",
    "spurious": "{} pages were reported that had not changed",
    "faults": "{} writes of entries have failed",
    "injections": "{} injections have met their event",
}


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence for each ``reach`` condition of the program that does not hold.

    Not asked where the user has let something go wrong that the scenario knows nothing of.
    """
    if run.about.foreign:
        history.unchecked["reached"] = "what was injected may have ended the program early"
        return []
    figures = history.figures()
    found = []
    for condition in run.program.reach:
        value = figures.get(condition.what)
        if value is None or not condition.holds(value):
            says = _SAYS.get(condition.what, f"{condition.what} is {{}}")
            found.append(
                Divergence(
                    checker="reached",
                    summary=f"{says.format(value)}; the scenario demands {condition}",
                    rule="the scenario's own condition, `# reach` in program.txt",
                    required=str(condition),
                    seen=f"{condition.what} is {value}",
                )
            )
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""A ``run_machine`` without a machine: what a run leaves in its directory, made by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qemu_model.channel import parse
from qemu_model.machine.command import MachineSpec, Mode, RunFiles, compose
from qemu_model.machine.console import BootLog
from qemu_model.machine.lost import Loss, MachineLost, Outcome
from qemu_model.machine.progress import Progress
from qemu_model.machine.qemu import Qemu
from qemu_model.machine.record import Record
from qemu_model.machine.vm import Limits
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import Uapi
from tests.unit.checkers.factory import Event, channel_bytes, make_trace
from tests.unit.machine.fake_machine import fake_spec

SECONDS = 1.25
"""How long a fake run takes."""


@dataclass
class FakeMachine:
    """Takes the place of ``run_machine``: every operation succeeds unless it is told otherwise.

    ``says`` is for factory.channel_bytes, ``lost`` a headline to lose the machine with,
    ``error`` something else to raise when the run is half done, ``seconds`` how long it
    takes on a machine.
    """

    says: Mapping[int, Sequence[str]] = field(default_factory=dict)
    events: Sequence[Event] = ()
    console: str = "Booting Linux\n"
    cut_channel: bool = False
    lost: str | None = None
    error: BaseException | None = None
    seconds: Callable[[MachineSpec], float] = lambda spec: SECONDS
    specs: list[MachineSpec] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)

    def __call__(
        self,
        spec: MachineSpec,
        qemu: Qemu,
        program: str,
        run_dir: Path,
        limits: Limits,
        progress: Progress,
        facts: Mapping[str, object] | None = None,
        interception: object = None,
    ) -> Outcome:
        assert not any(run_dir.iterdir())
        self.specs.append(spec)
        self.programs.append(program)
        self.directories.append(run_dir)
        files = RunFiles(run_dir)
        record = Record(files.run, spec, qemu, program, facts or {})
        record.start(compose(spec, qemu.argv_prefix, run_dir))
        files.program.write_text(program)
        if self.error is not None:
            raise self.error
        channel = channel_bytes(program, self.says)
        if self.cut_channel:
            channel = channel[:-10]
        files.agent.write_bytes(channel)
        files.console.write_text(self.console)
        if spec.plugin is not None and spec.trace:
            files.trace.write_bytes(make_trace(self.events).data)
        seconds = self.seconds(spec)
        outcome = Outcome(run_dir, parse(channel), BootLog(), seconds, len(self.events), 0, ())
        if self.lost is not None:
            record.finish("lost", self.lost, outcome)
            raise MachineLost(Loss.PANIC, self.lost, outcome)
        record.finish("complete", "", outcome)
        return outcome


def fake_bench(
    tmp_path: Path,
    *,
    qemu: Qemu | None = None,
    uapi: Uapi | None = None,
    keep: Path | None = None,
    seed: int = 1,
    command: str = "",
    limits: Limits | None = None,
) -> Bench:
    """A bench of files with a few bytes; failed runs go to ``tmp_path/runs``."""
    spec = fake_spec(tmp_path / "files")
    assert spec.plugin is not None
    return Bench(
        qemu=qemu or Qemu(("no-such-qemu",), "11.1.3", 7, "test"),
        kernel=spec.kernel,
        agent=spec.agent,
        plugin=spec.plugin,
        uapi=uapi or Uapi("cap", 300),
        mode=Mode.PARALLEL,
        seed=seed,
        command=command,
        limits=limits or Limits(),
        runs=tmp_path / "runs",
        keep=keep,
        unwatched="a fake has no memory to watch",
    )


def below(directory: Path) -> list[str]:
    """The names in a directory, sorted; empty when there is none."""
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

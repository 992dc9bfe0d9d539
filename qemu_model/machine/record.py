# SPDX-License-Identifier: GPL-2.0-or-later
"""run.json: what was run, precisely enough to check it offline and to run it again."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qemu_model.machine.cache import file_digest, file_trouble
from qemu_model.machine.command import RAM_BASE, MachineSpec, kernel_cmdline
from qemu_model.machine.lost import Outcome
from qemu_model.machine.qemu import Qemu

VERSION = 1


def _file(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {"path": str(path), "sha256": file_digest(path).hex()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that a reader sees all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        partial.rename(path)
    except OSError as error:
        raise file_trouble("write", path, error) from error


@dataclass
class Record:
    """The growing run.json of one run: written at the start and again at the end.

    Fields: those of ``facts`` (scenario and the like, from the caller); ``version``;
    ``machine`` (mode, smp, memory in MiB, seed, ram_base, cmdline); ``qemu``; ``kernel``,
    ``agent``, ``plugin`` with sha256; ``program_sha256``; ``argv``; ``host``; ``started``
    (UTC); ``shared_console`` (the agent had no port of its own); ``end`` (how: running,
    complete, lost, interrupted; why, seconds, records, status, stages).
    """

    path: Path
    spec: MachineSpec
    qemu: Qemu
    program: str
    facts: Mapping[str, object]
    _content: dict[str, Any] = field(default_factory=dict, init=False)

    def start(self, argv: tuple[str, ...]) -> None:
        """Write what is about to be run."""
        spec, kernel = self.spec, self.spec.kernel
        self._content = {
            **self.facts,
            "version": VERSION,
            "machine": {
                "mode": str(spec.mode),
                "smp": spec.smp,
                "memory": spec.memory,
                "seed": spec.seed,
                "ram_base": RAM_BASE,
                "cmdline": kernel_cmdline(spec),
            },
            "qemu": {
                "argv_prefix": self.qemu.argv_prefix,
                "version": self.qemu.version,
                "plugin_api": self.qemu.plugin_api,
                "origin": self.qemu.origin,
            },
            "kernel": {
                "description": kernel.description,
                "cap": kernel.cap,
                "image": _file(kernel.image),
                "vmlinux": None if kernel.vmlinux is None else str(kernel.vmlinux),
            },
            "agent": _file(spec.agent),
            "plugin": _file(spec.plugin),
            "program_sha256": hashlib.sha256(self.program.encode()).hexdigest(),
            "argv": argv,
            "host": {"machine": platform.machine(), "python": platform.python_version()},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "shared_console": False,
            "end": {"how": "running"},
        }
        write_json(self.path, self._content)

    def finish(self, how: str, why: str, outcome: Outcome | None) -> None:
        """Write how it ended."""
        if not self._content:
            return  # it never started
        end: dict[str, Any] = {"how": how, "why": why}
        if outcome is not None:
            end |= {
                "seconds": round(outcome.seconds, 3),
                "records": outcome.records,
                "status": outcome.status,
                "stages": {str(s): round(t, 3) for s, t in outcome.boot.reached.items()},
                "panic": outcome.boot.panic,
                "oops": outcome.boot.oops,
                "channel_problems": outcome.channel.problems,
            }
            self._content["shared_console"] = outcome.shared_console
        self._content["end"] = end
        write_json(self.path, self._content)

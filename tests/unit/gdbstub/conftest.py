# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the interceptor's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gdbstub.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.interceptor.close()
    made.ram.close()

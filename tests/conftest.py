# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests rely on."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more about the host than about us.
settings.register_profile("any-host", deadline=None)
settings.load_profile("any-host")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C works in a test even if we were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One question asked of a finished run per file."""

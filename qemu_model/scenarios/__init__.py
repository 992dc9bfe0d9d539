# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of scenarios, one file per family."""

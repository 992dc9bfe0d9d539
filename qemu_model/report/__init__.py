# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts for people and machines: text and JSON."""

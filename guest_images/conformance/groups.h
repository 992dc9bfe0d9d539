/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The groups of tests, each from the file of its name. */
#ifndef GROUPS_H
#define GROUPS_H

#include "ktap.h"

extern const struct group registers_group, append_group, instructions_group, full_group,
	sizes_group, leaf_group, walks_group, at_group,
	vtcr_group, reset_group, smp_group, two_group,
	choices_group, inject_group;

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
/* All groups of the conformance program, in the order in which they run. */
#include <stddef.h>

#include "groups.h"

const struct group *const groups[] = {
	&registers_group,
	&append_group,
	&instructions_group,
	&full_group,
	&sizes_group,
	&leaf_group,
	&walks_group,
	&at_group,
	&vtcr_group,
	&reset_group,
	&smp_group,
	&two_group,
	&choices_group,
	&inject_group,
	NULL,
};

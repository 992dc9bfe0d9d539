/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes that the grammar promises and the rest of the agent provides. */
#ifndef AGENT_GRAMMAR_LIMITS_H
#define AGENT_GRAMMAR_LIMITS_H

#define NR_SLOTS 128u
#define NR_VCPUS 8u
#define PAGES_MAX (1u << 20)		/* pages of one slot: 4 GB */
#define LANE_MAX 511u			/* 8-byte words of a page */
#define CPU_MAX 1023u
#define LIMIT_DEFAULT_MS 60000u
#define LIMIT_MAX_MS 3600000u
#define KLOG_LEVEL_DEFAULT 4u		/* warning and worse */

#endif

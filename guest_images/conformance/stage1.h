/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stage 1 translation of the guest: 39 bits, 4K, 2 MB blocks, hardware AF and dirty state. */
#ifndef STAGE1_H
#define STAGE1_H

#include "world.h"

#define TABLES	DATA			/* IPA = PA: level 1, and a page behind it level 2 */
#define TABLE2	(TABLES + 4096)
#define TARGET	(DATA + 0x200000)	/* the 2 MB that the guest loads from and stores to */

#define S1_AF	(1ull << 10)
#define S1_RO	(1ull << 7)
#define S1_DBM	(1ull << 51)

/* Stage 2 descriptor of the level 2 table */
extern volatile u64 *table_page;

/* A group's begin: the world, with TARGET mapped writable at stage 2. */
void stage1_begin(void);
/* Make the tables with these attributes, map them clean, INDEX = 0. */
void stage1(u64 code_attributes, u64 data_attributes);
/* The stage 1 descriptor of TARGET. */
volatile u64 *stage1_target(void);

#endif

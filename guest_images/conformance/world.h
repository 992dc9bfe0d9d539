/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one guest that most tests have: 4K pages, 39 bits of IPA, a buffer of 512 entries. */
#ifndef WORLD_H
#define WORLD_H

#include "bare.h"
#include "ktap.h"
#include "parameters.h"

extern struct guest guest;
extern struct stage2 s2;
extern u64 buffer;		/* of 4 KB, and 4 KB of RAM behind it */

/* A group's begin: the guest, its tables, the buffer empty, HDBSS on. */
void world_begin(void);
/* Map a 4 KB page of DATA; returns its descriptor. */
volatile u64 *page(unsigned int number, u64 attributes);
#define PAGE(number)	(DATA + (number) * 4096ull)
/* Run guest code on an address until it ends; the number of new entries. */
u64 entries_of(const char *code, u64 address);
/* Whether a syndrome is that of a write that was refused at level 3. */
bool refused(u64 esr);
/* What guest code ended with that was UNDEFINED: its own handler says from where it was called. */
void check_undefined(const char *what, u64 esr, bool el0);
/* Fewer of something where each event stops the machine. */
static inline unsigned int fewer(unsigned int many, unsigned int few)
{
	return parameter_is("stops", "yes") ? few : many;
}

#endif

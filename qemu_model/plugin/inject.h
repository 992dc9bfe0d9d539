/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is made to go wrong, and when. qemu_model/model/injection.py defines the
 * kinds, the events that they count and how they are written; here the words are
 * separated by colons.
 */
#ifndef HDBSS_INJECT_H
#define HDBSS_INJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define INJECTIONS_MAX	16

/* As in a trace */
enum inject_what {
	INJECT_ABORT = 1,
	INJECT_GPF = 2,
	INJECT_CAS_LOST = 3,
	INJECT_FILL = 4,
	INJECT_S1PTW = 5,
	INJECT_FETCH = 6,
	INJECT_INDEX = 7,
	INJECT_UNKNOWN = 8,
};

enum inject_event {
	EVENT_APPEND,
	EVENT_REFUSAL,
	EVENT_ENTRY,
	EVENT_RESET,
};

enum inject_preset {
	PRESET_ZERO,
	PRESET_LAST,
	PRESET_FULL,
	PRESET_MAX,
};

struct injection {
	enum inject_what what;
	uint64_t at;
	uint64_t times;			/* 0: for ever */
	bool by_pe, by_vmid, by_ipa;
	uint64_t pe, vmid, ipa;
	bool precise, dirty;
	uint64_t late;
	enum inject_preset preset;
	uint64_t seed;
	_Atomic uint64_t seen;		/* events that it counts */
};

struct injector {
	struct injection list[INJECTIONS_MAX];
	unsigned int nr;
};

/* Add WHAT[=VALUE][:KEY=VALUE].. (spec is changed); false if it is none, or too many. */
bool inject_add(struct injector *injector, char *spec);

/* The first injection that is due at this event, NULL if none is. Any thread may ask. */
const struct injection *inject_meet(struct injector *injector, enum inject_event event,
				    unsigned int pe, uint64_t vttbr, uint64_t ipa);

/* Its number, from 0. */
unsigned int inject_number(const struct injector *injector, const struct injection *injection);

/* 64 bits that a register, 0 to 2, may hold after a PE's reset number @reset. */
uint64_t inject_unknown(uint64_t seed, unsigned int pe, uint64_t reset, unsigned int reg);

#endif

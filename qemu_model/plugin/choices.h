/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the architecture leaves open. Names and values are those of
 * qemu_model/model/choices.py, which says what each one means; zero is the
 * default of all of them here.
 */
#ifndef HDBSS_CHOICES_H
#define HDBSS_CHOICES_H

#include <stdbool.h>

#define CHOICES_COUNT_MAX	(1u << 18)

struct choices {
	unsigned int zero_ahead;
	unsigned int fsc_delay;
	bool lost_cas_takes_back;	/* lost_cas_keeps_entry=no */
	bool external_abort_precise;
	bool gpf_precise;
	bool dirty_after_external_abort;
	bool late;			/* visibility=dsb */
	bool af_with_refusal;
	bool lazy;			/* caching=lazy */
};

/* Whether there is a choice of this name. */
bool choices_known(const char *name);

/* Make a choice; false for a value that it does not have. */
bool choices_set(struct choices *choices, const char *name, const char *value);

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "choices.h"

static const struct choice {
	const char *name;
	size_t offset;
	/* values of a flag: what false and what true is called; NULL: it is a number */
	const char *off, *on;
} choices_table[] = {
	{ "zero_ahead", offsetof(struct choices, zero_ahead), NULL, NULL },
	{ "fsc_delay", offsetof(struct choices, fsc_delay), NULL, NULL },
	{ "lost_cas_keeps_entry", offsetof(struct choices, lost_cas_takes_back), "yes", "no" },
	{ "external_abort", offsetof(struct choices, external_abort_precise), "fsc", "precise" },
	{ "gpf", offsetof(struct choices, gpf_precise), "fsc", "precise" },
	{ "dirty_after_external_abort", offsetof(struct choices, dirty_after_external_abort),
	  "no", "yes" },
	{ "visibility", offsetof(struct choices, late), "at-once", "dsb" },
	{ "af_with_refusal", offsetof(struct choices, af_with_refusal), "no", "yes" },
	{ "caching", offsetof(struct choices, lazy), "at-once", "lazy" },
};

static const struct choice *find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(choices_table) / sizeof(choices_table[0]); i++)
		if (!strcmp(choices_table[i].name, name))
			return &choices_table[i];
	return NULL;
}

bool choices_known(const char *name)
{
	return find(name);
}

bool choices_set(struct choices *choices, const char *name, const char *value)
{
	const struct choice *choice = find(name);
	unsigned long number;
	char *field, *end;

	if (!choice)
		return false;
	field = (char *)choices + choice->offset;
	if (choice->on) {
		bool on = !strcmp(value, choice->on);

		if (!on && strcmp(value, choice->off))
			return false;
		memcpy(field, &on, sizeof(on));
		return true;
	}
	number = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || number > CHOICES_COUNT_MAX)
		return false;
	memcpy(field, &(unsigned int){ (unsigned int)number }, sizeof(unsigned int));
	return true;
}

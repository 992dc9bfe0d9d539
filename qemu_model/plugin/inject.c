// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "inject.h"

#define PAGE	(~0xfffull)

static const struct {
	const char *word;
	enum inject_what what;
	enum inject_event event;
	const char *key;		/* of the event */
} kinds[] = {
	{ "abort", INJECT_ABORT, EVENT_APPEND, "append" },
	{ "gpf", INJECT_GPF, EVENT_APPEND, "append" },
	{ "cas-lost", INJECT_CAS_LOST, EVENT_APPEND, "append" },
	{ "fill", INJECT_FILL, EVENT_APPEND, "append" },
	{ "s1ptw", INJECT_S1PTW, EVENT_REFUSAL, "refusal" },
	{ "fetch", INJECT_FETCH, EVENT_REFUSAL, "refusal" },
	{ "index", INJECT_INDEX, EVENT_ENTRY, "entry" },
	{ "unknown", INJECT_UNKNOWN, EVENT_RESET, "reset" },
};

static const char *const presets[] = { "0", "last", "full", "max" };

static unsigned int kind_of(enum inject_what what)
{
	unsigned int i = 0;

	while (kinds[i].what != what)
		i++;
	return i;
}

static bool number(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 0);
	return !*end && !errno;
}

static bool flag(const char *text, const char *off, const char *on, bool *value)
{
	*value = !strcmp(text, on);
	return *value || !strcmp(text, off);
}

static bool argument(struct injection *injection, const char *key, const char *value)
{
	if (!strcmp(key, kinds[kind_of(injection->what)].key))
		return number(value, &injection->at) && injection->at;
	if (!strcmp(key, "times"))
		return number(value, &injection->times);
	if (!strcmp(key, "pe"))
		return injection->by_pe = true, number(value, &injection->pe);
	if (!strcmp(key, "vmid"))
		return injection->by_vmid = true, number(value, &injection->vmid);
	if (!strcmp(key, "ipa"))
		return injection->by_ipa = true, number(value, &injection->ipa);
	if (!strcmp(key, "report"))
		return flag(value, "fsc", "precise", &injection->precise);
	if (!strcmp(key, "dirty"))
		return flag(value, "no", "yes", &injection->dirty);
	if (!strcmp(key, "late"))
		return number(value, &injection->late);
	if (!strcmp(key, "seed"))
		return number(value, &injection->seed);
	return false;
}

static bool head(struct injection *injection, char *word)
{
	char *value = strchr(word, '=');
	unsigned int i;

	if (value)
		*value++ = '\0';
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].word, word))
			break;
	if (i == sizeof(kinds) / sizeof(kinds[0]))
		return false;
	injection->what = kinds[i].what;
	if (injection->what != INJECT_INDEX)
		return !value;
	for (i = 0; value && i < sizeof(presets) / sizeof(presets[0]); i++)
		if (!strcmp(presets[i], value)) {
			injection->preset = (enum inject_preset)i;
			return true;
		}
	return false;
}

bool inject_add(struct injector *injector, char *spec)
{
	struct injection *injection = &injector->list[injector->nr];
	char *word = spec, *next;

	if (injector->nr == INJECTIONS_MAX)
		return false;
	memset(injection, 0, sizeof(*injection));
	injection->at = 1;
	injection->times = 1;
	for (; word; word = next) {
		char *value;

		next = strchr(word, ':');
		if (next)
			*next++ = '\0';
		if (word == spec) {
			if (!head(injection, word))
				return false;
			continue;
		}
		value = strchr(word, '=');
		if (!value)
			return false;
		*value++ = '\0';
		if (!argument(injection, word, value))
			return false;
	}
	injector->nr++;
	return true;
}

const struct injection *inject_meet(struct injector *injector, enum inject_event event,
				    unsigned int pe, uint64_t vttbr, uint64_t ipa)
{
	const struct injection *found = NULL;
	unsigned int i;

	for (i = 0; injector && i < injector->nr; i++) {
		struct injection *injection = &injector->list[i];
		uint64_t seen;

		if (kinds[kind_of(injection->what)].event != event ||
		    (injection->by_pe && injection->pe != pe) ||
		    (injection->by_vmid && injection->vmid != vttbr >> 48) ||
		    (injection->by_ipa && (injection->ipa ^ ipa) & PAGE))
			continue;
		seen = atomic_fetch_add(&injection->seen, 1) + 1;
		if (!found && seen >= injection->at &&
		    (!injection->times || seen - injection->at < injection->times))
			found = injection;
	}
	return found;
}

unsigned int inject_number(const struct injector *injector, const struct injection *injection)
{
	return (unsigned int)(injection - injector->list);
}

/* splitmix64 */
uint64_t inject_unknown(uint64_t seed, unsigned int pe, uint64_t reset, unsigned int reg)
{
	uint64_t state = seed + 0x9e3779b97f4a7c15ull *
				(1 + reg + 8 * reset + ((uint64_t)pe << 32));

	state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9ull;
	state = (state ^ state >> 27) * 0x94d049bb133111ebull;
	return state ^ state >> 31;
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* Reads the program's parameters from QEMU's fw_cfg device, and finds words in them. */
#include <stddef.h>

#include "bare.h"
#include "parameters.h"

#define FW_CFG		0x09020000ull
#define FW_CFG_DIR	0x19
#define FILE_NAME	"opt/hdbss/conformance"
#define NAME_SIZE	56

static char text[2048];

static void fw_cfg_select(unsigned int item)
{
	*(volatile uint16_t *)(FW_CFG + 8) = __builtin_bswap16((uint16_t)item);
}

static unsigned int fw_cfg_number(unsigned int bytes)
{
	unsigned int value = 0;

	while (bytes--)
		value = value << 8 | *(volatile uint8_t *)FW_CFG;
	return value;
}

static bool same(const char *one, const char *other)
{
	while (*one && *one == *other) {
		one++;
		other++;
	}
	return *one == *other;
}

void parameters_read(void)
{
	unsigned int count, item = 0, size = 0, i;

	fw_cfg_select(FW_CFG_DIR);
	for (count = fw_cfg_number(4); count && !item; count--) {
		char name[NAME_SIZE + 1] = { 0 };
		unsigned int select;

		size = fw_cfg_number(4);
		select = fw_cfg_number(2);
		fw_cfg_number(2);
		for (i = 0; i < NAME_SIZE; i++)
			name[i] = (char)fw_cfg_number(1);
		if (same(name, FILE_NAME))
			item = select;
	}
	if (!item)
		return;
	fw_cfg_select(item);
	for (i = 0; i < size && i + 1 < sizeof(text); i++)
		text[i] = (char)fw_cfg_number(1);
}

const char *parameters_text(void)
{
	return text;
}

/* What follows KEY= in words that @separator ends; NULL without it. */
static const char *find(const char *words, const char *key, char separator, char end)
{
	while (*words && *words != end) {
		const char *k = key;

		while (*k && *words == *k) {
			words++;
			k++;
		}
		if (!*k && *words == '=')
			return words + 1;
		while (*words && *words != end && *words != separator)
			words++;
		if (*words == separator)
			words++;
	}
	return NULL;
}

static bool value_is(const char *value, const char *wanted)
{
	if (!value)
		return false;
	while (*wanted && *value == *wanted) {
		value++;
		wanted++;
	}
	return !*wanted && (!*value || *value == ' ' || *value == ':');
}

static u64 number(const char *value, u64 missing)
{
	u64 result = 0;

	if (!value || *value < '0' || *value > '9')
		return missing;
	while (*value >= '0' && *value <= '9')
		result = result * 10 + (u64)(*value++ - '0');
	return result;
}

bool parameter_is(const char *key, const char *value)
{
	return value_is(find(text, key, ' ', '\0'), value);
}

u64 parameter_number(const char *key, u64 missing)
{
	return number(find(text, key, ' ', '\0'), missing);
}

/* Whether GROUP or GROUP.TEST begins at @word and ends with it. */
static bool names(const char *word, const char *group, const char *test)
{
	while (*group && *word == *group) {
		word++;
		group++;
	}
	if (*group)
		return false;
	if (*word == '.')
		for (word++; *test && *word == *test; word++, test++)
			;
	else
		test = "";
	return !*test && (!*word || *word == ' ' || *word == ',');
}

bool parameter_selects(const char *group, const char *test)
{
	const char *word = find(text, "tests", ' ', '\0');

	if (!word)
		return true;
	for (;;) {
		if (names(word, group, test))
			return true;
		while (*word && *word != ' ' && *word != ',')
			word++;
		if (*word++ != ',')
			return false;
	}
}

bool injection_is(const char *key, const char *value)
{
	const char *words = find(text, "inject", ' ', '\0');

	return words && value_is(find(words, key, ':', ' '), value);
}

u64 injection_number(const char *key, u64 missing)
{
	const char *words = find(text, "inject", ' ', '\0');

	return words ? number(find(words, key, ':', ' '), missing) : missing;
}

bool injected(const char *what)
{
	const char *word = find(text, "inject", ' ', '\0');

	if (!word)
		return false;
	while (*what && *word == *what) {
		word++;
		what++;
	}
	return !*what;
}

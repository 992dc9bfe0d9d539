// SPDX-License-Identifier: GPL-2.0-or-later
/* Parser of the program text; nothing here trusts a byte of it. */
#include <string.h>

#include "grammar_limits.h"
#include "program.h"

struct word {
	const char *s;
	size_t len;
};

static bool word_is(struct word w, const char *s)
{
	return strlen(s) == w.len && memcmp(w.s, s, w.len) == 0;
}

/* Cut the next word off the line; words are separated by blanks. */
static bool next_word(const char **p, const char *end, struct word *w)
{
	while (*p < end && (**p == ' ' || **p == '\t' || **p == '\r'))
		(*p)++;
	w->s = *p;
	while (*p < end && **p != ' ' && **p != '\t' && **p != '\r')
		(*p)++;
	w->len = (size_t)(*p - w->s);
	return w->len > 0;
}

static bool parse_number(struct word w, uint64_t *value)
{
	uint64_t base = 10, v = 0;

	if (w.len > 2 && w.s[0] == '0' && w.s[1] == 'x') {
		base = 16;
		w.s += 2;
		w.len -= 2;
	}
	if (w.len == 0)
		return false;
	for (size_t i = 0; i < w.len; i++) {
		char c = w.s[i];
		uint64_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (uint64_t)(c - 'a') + 10;
		else if (c >= 'A' && c <= 'F')
			digit = (uint64_t)(c - 'A') + 10;
		else
			return false;
		if (digit >= base || v > (UINT64_MAX - digit) / base)
			return false;
		v = v * base + digit;
	}
	*value = v;
	return true;
}

static bool parse_mem(struct word w, uint64_t *value)
{
	uint64_t slot;

	if (word_is(w, "anon")) {
		*value = MEM_VALUE(MEM_ANON, 0);
	} else if (word_is(w, "thp")) {
		*value = MEM_VALUE(MEM_THP, 0);
	} else if (word_is(w, "memfd")) {
		*value = MEM_VALUE(MEM_MEMFD, 0);
	} else if (w.len > 6 && memcmp(w.s, "alias:", 6) == 0) {
		struct word n = { w.s + 6, w.len - 6 };

		if (!parse_number(n, &slot) || slot >= NR_SLOTS)
			return false;
		*value = MEM_VALUE(MEM_ALIAS, slot);
	} else {
		return false;
	}
	return true;
}

static bool parse_value(const struct arg_spec *spec, struct word w, uint64_t *value)
{
	switch (spec->type) {
	case ARG_NUMBER:
		return parse_number(w, value) && *value >= spec->min && *value <= spec->max;
	case ARG_CHOICE:
		for (uint64_t i = 0; spec->choices[i]; i++) {
			if (word_is(w, spec->choices[i])) {
				*value = i;
				return true;
			}
		}
		return false;
	case ARG_MEM:
		return parse_mem(w, value);
	case ARG_CAP:
		if (word_is(w, "hdbss")) {
			*value = CAP_HDBSS;
			return true;
		}
		return parse_number(w, value) && *value <= UINT32_MAX;
	case ARG_FLAG:
		break;
	}
	return false;
}

static bool add_specs(struct op *op, const struct arg_spec *specs)
{
	for (; specs->name; specs++) {
		if (op->nr_args == OP_ARGS_MAX)
			return false;
		op->args[op->nr_args++] = (struct arg){ specs, specs->fallback, false };
	}
	return true;
}

static struct arg *find_arg(struct op *op, struct word name)
{
	for (unsigned int i = 0; i < op->nr_args; i++)
		if (!op->args[i].spec->positional && word_is(name, op->args[i].spec->name))
			return &op->args[i];
	return NULL;
}

/*
 * A bare word is the next positional argument if it can be one, else a flag.
 * An optional positional (`pin agent`) may be missing.
 */
static const char *take_bare(struct op *op, struct word w)
{
	struct arg *arg;

	for (unsigned int i = 0; i < op->nr_args; i++) {
		arg = &op->args[i];
		if (!arg->spec->positional || arg->given)
			continue;
		if (!parse_value(arg->spec, w, &arg->value))
			return "bad positional argument";
		arg->given = true;
		if (op->spec->payload && strcmp(arg->spec->name, "kind") == 0 &&
		    !add_specs(op, grammar_payloads[arg->value]))
			return "too many arguments";
		return NULL;
	}
	arg = find_arg(op, w);
	if (!arg || arg->spec->type != ARG_FLAG)
		return "unknown word";
	if (arg->given)
		return "argument given twice";
	arg->given = true;
	arg->value = 1;
	return NULL;
}

static const char *take_key(struct op *op, struct word w, size_t eq)
{
	struct word name = { w.s, eq }, value = { w.s + eq + 1, w.len - eq - 1 };
	struct arg *arg = find_arg(op, name);

	if (!arg || arg->spec->type == ARG_FLAG)
		return "unknown argument";
	if (arg->given)
		return "argument given twice";
	if (!parse_value(arg->spec, value, &arg->value))
		return "bad value";
	arg->given = true;
	return NULL;
}

/* What a table of single arguments cannot say. */
static const char *check_op(const struct op *op)
{
	if (op->spec->id == OP_PIN &&
	    op_given(op, "vcpu") == (op_given(op, "mode") && op_value(op, "mode") == PIN_AGENT))
		return "pin needs either agent or vcpu=";
	if (op->spec->id == OP_HDBSS && op_value(op, "state") == 0 && !op_given(op, "order"))
		return "hdbss on needs order=";
	if (op->spec->payload) {
		if (op_value(op, "kind") == PAYLOAD_STRIDE && op_value(op, "width") != 1 &&
		    op_value(op, "width") != 8)
			return "width is 1 or 8";
		if (op_given(op, "offset") && op_given(op, "lane"))
			return "offset= and lane= exclude each other";
	}
	return NULL;
}

enum program_status program_parse_line(const char *line, size_t len,
				       struct op *op, const char **why)
{
	const char *p = line, *end = line + len, *bad = NULL;
	const char *hash = len ? memchr(line, '#', len) : NULL;
	struct word w;

	memset(op, 0, sizeof(*op));
	*why = NULL;
	if (hash)
		end = hash;
	if (!next_word(&p, end, &w))
		return PROGRAM_EMPTY;
	if (end - line > PROGRAM_LINE_MAX) {
		*why = "line too long";
		return PROGRAM_BAD;
	}
	for (op->spec = grammar_ops; op->spec->name; op->spec++)
		if (word_is(w, op->spec->name))
			break;
	if (!op->spec->name) {
		op->spec = NULL;
		*why = "unknown operation";
		return PROGRAM_BAD;
	}
	if (!add_specs(op, op->spec->args))
		bad = "too many arguments";
	while (!bad && next_word(&p, end, &w)) {
		const char *eq = memchr(w.s, '=', w.len);

		bad = eq ? take_key(op, w, (size_t)(eq - w.s)) : take_bare(op, w);
	}
	for (unsigned int i = 0; !bad && i < op->nr_args; i++)
		if (op->args[i].spec->required && !op->args[i].given)
			bad = "argument missing";
	if (!bad)
		bad = check_op(op);
	*why = bad;
	return bad ? PROGRAM_BAD : PROGRAM_OP;
}

bool program_next_line(const char *buf, size_t len, size_t *pos,
		       const char **line, size_t *line_len)
{
	const char *nl;

	if (*pos >= len)
		return false;
	*line = buf + *pos;
	nl = memchr(*line, '\n', len - *pos);
	*line_len = nl ? (size_t)(nl - *line) : len - *pos;
	*pos += *line_len + 1;
	return true;
}

static const struct arg *lookup(const struct op *op, const char *name)
{
	for (unsigned int i = 0; i < op->nr_args; i++)
		if (strcmp(op->args[i].spec->name, name) == 0)
			return &op->args[i];
	return NULL;
}

uint64_t op_value(const struct op *op, const char *name)
{
	const struct arg *arg = lookup(op, name);

	return arg ? arg->value : 0;
}

bool op_given(const struct op *op, const char *name)
{
	const struct arg *arg = lookup(op, name);

	return arg && arg->given;
}

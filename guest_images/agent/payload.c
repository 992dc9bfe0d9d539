// SPDX-License-Identifier: GPL-2.0-or-later
#include "payload.h"

#include <string.h>

#include "truth.h"
#include "vm.h"

extern const char payload_begin[], payload_end[];
extern const char payload_store8[], payload_store1[], payload_random[], payload_ldadd[],
	payload_swp[], payload_cas[], payload_stxr[], payload_read[], payload_exec[];

void payload_install(void *code)
{
	size_t bytes = (size_t)(payload_end - payload_begin);

	memcpy(code, payload_begin, bytes);
	__builtin___clear_cache((char *)code, (char *)code + bytes);
}

static const char *entry_of(const struct op *op)
{
	static const char *const atomics[] = {
		[HOW_LDADD] = payload_ldadd,
		[HOW_SWP] = payload_swp,
		[HOW_CAS] = payload_cas,
		[HOW_STXR] = payload_stxr,
	};

	switch ((enum payload_kind)op_value(op, "kind")) {
	case PAYLOAD_STRIDE:
		return op_value(op, "width") == 1 ? payload_store1 : payload_store8;
	case PAYLOAD_RANDOM:
		return payload_random;
	case PAYLOAD_ATOMIC:
		return atomics[op_value(op, "how")];
	case PAYLOAD_READ:
		return payload_read;
	case PAYLOAD_EXEC:
		break;
	}
	return payload_exec;
}

void payload_prepare(struct payload *p, const struct op *op)
{
	bool random = op_value(op, "kind") == PAYLOAD_RANDOM;

	p->pc = CODE_GPA + (uint64_t)(entry_of(op) - payload_begin);
	p->x[0] = op_value(op, "gpa") + op_value(op, "offset") + 8 * op_value(op, "lane");
	p->x[1] = op_value(op, "count");
	p->x[2] = op_value(op, random ? "pages" : "stride");
	p->x[3] = random ? 1 : op_value(op, "ocount");
	p->x[4] = op_value(op, "ostride");
	p->x[5] = op_value(op, "value");
	p->x[6] = op_value(op, "loops");
	p->x[7] = DOOR_GPA;
	p->x[8] = op_value(op, "seed");
	p->x[9] = op_value(op, "spin");
}

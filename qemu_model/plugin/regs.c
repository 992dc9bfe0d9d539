// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <stdatomic.h>

#include "decode.h"
#include "qemu_api.h"
#include "regs.h"

/* Handles belong to the CPU model, not to one vCPU; regs_init() checks that. */
static struct qemu_plugin_register *handles[NR_REGS];
static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static bool handles_known;
static atomic_bool failed;

/*
 * Kept per thread and never freed by a callback: qemu_plugin_set_pc() leaves
 * callbacks by longjmp.
 */
static __thread GByteArray *buffer;

static const char *const names[NR_REGS] = {
	"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10",
	"x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18", "x19", "x20",
	"x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
	[REG_PC] = "pc",
	[REG_CPSR] = "cpsr",
	[REG_ELR_EL2] = "ELR_EL2",
	[REG_ESR_EL2] = "ESR_EL2",
	[REG_FAR_EL2] = "FAR_EL2",
	[REG_HCR_EL2] = "HCR_EL2",
	[REG_HPFAR_EL2] = "HPFAR_EL2",
	[REG_ID_AA64MMFR1_EL1] = "ID_AA64MMFR1_EL1",
	[REG_SCTLR_EL2] = "SCTLR_EL2",
	[REG_SPSR_EL2] = "SPSR_EL2",
	[REG_TPIDR_EL2] = "TPIDR_EL2",
	[REG_VTCR_EL2] = "VTCR_EL2",
	[REG_VTTBR_EL2] = "VTTBR_EL2",
};

static struct qemu_plugin_register *find(const GArray *list, const char *name)
{
	const qemu_plugin_reg_descriptor *descriptors = (const void *)list->data;
	unsigned int i;

	for (i = 0; i < list->len; i++)
		if (!g_strcmp0(descriptors[i].name, name))
			return descriptors[i].handle;
	return NULL;
}

const char *regs_init(void)
{
	GArray *list = qemu_plugin_get_registers();
	const char *missing = NULL;
	unsigned int i;

	pthread_mutex_lock(&handles_lock);
	for (i = 0; i < NR_REGS && !missing; i++) {
		struct qemu_plugin_register *handle = find(list, names[i]);

		if (!handle || (handles_known && handle != handles[i]))
			missing = names[i];
		else
			handles[i] = handle;
	}
	handles_known = true;
	pthread_mutex_unlock(&handles_lock);
	g_array_free(list, TRUE);
	return missing;
}

static GByteArray *emptied_buffer(void)
{
	if (!buffer)
		buffer = g_byte_array_new();
	g_byte_array_set_size(buffer, 0);
	return buffer;
}

uint64_t reg_read(enum reg reg)
{
	GByteArray *bytes = emptied_buffer();
	uint64_t value = 0;
	unsigned int i;

	if (!qemu_plugin_read_register(handles[reg], bytes) || !bytes->len || bytes->len > 8) {
		atomic_store(&failed, true);
		return 0;
	}
	for (i = bytes->len; i--;)
		value = value << 8 | bytes->data[i];
	return value;
}

bool regs_failed(void)
{
	return atomic_load_explicit(&failed, memory_order_relaxed) &&
	       atomic_exchange(&failed, false);
}

uint64_t reg_read_x(unsigned int n)
{
	return n == RT_XZR ? 0 : reg_read(REG_X0 + n);
}

void reg_write_x(unsigned int n, uint64_t value)
{
	GByteArray *bytes = emptied_buffer();
	uint64_t little = GUINT64_TO_LE(value);

	if (n == RT_XZR)
		return;
	g_byte_array_append(bytes, (const guint8 *)&little, sizeof(little));
	if (!qemu_plugin_write_register(handles[REG_X0 + n], bytes))
		atomic_store(&failed, true);
}

unsigned int reg_current_el(void)
{
	return reg_read(REG_CPSR) >> 2 & 3;
}

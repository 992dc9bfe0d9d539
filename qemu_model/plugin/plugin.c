// SPDX-License-Identifier: GPL-2.0-or-later
/* The connection to QEMU: options, translation, the vCPUs' beginning, the end. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decode.h"
#include "interceptor.h"
#include "regs.h"
#include "watch.h"

#define FLUSH_RETURNS_MAX	64

struct interceptor interceptor;

static struct {
	const char *ram;
	const char *trace;
	uint64_t trace_limit;
	int flush_fd;		/* socket of the watcher */
	uint64_t flush_at[FLUSH_RETURNS_MAX];	/* addresses of RETs that complete a flush */
	unsigned int nr_flush_at;
} options = { .trace_limit = TRACE_LIMIT_DEFAULT, .flush_fd = -1 };

static void insn_callback(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_udata_cb_t callback,
			  enum qemu_plugin_cb_flags flags, uint32_t word, uint64_t vaddr)
{
	qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, flags, site_pack(word, vaddr));
}

static void translate_mrs(struct qemu_plugin_insn *insn, uint32_t word, uint64_t vaddr)
{
	switch (insn_sysreg(word)) {
	case SYS_ID_AA64MMFR1_EL1:
	case SYS_HDBSSBR_EL2:
	case SYS_HDBSSPROD_EL2:
	case SYS_VTCR_EL2:
		insn_callback(insn, on_mrs, QEMU_PLUGIN_CB_RW_REGS_PC, word, vaddr);
		break;
	case SYS_ESR_EL1:
	case SYS_ESR_EL2:
		insn_callback(insn, on_mrs_esr, QEMU_PLUGIN_CB_RW_REGS_PC, word, vaddr);
		break;
	}
}

static void translate_msr(struct qemu_plugin_insn *insn, uint32_t word, uint64_t vaddr)
{
	switch (insn_sysreg(word)) {
	case SYS_HDBSSBR_EL2:
	case SYS_HDBSSPROD_EL2:
		insn_callback(insn, on_msr_hdbss, QEMU_PLUGIN_CB_RW_REGS_PC, word, vaddr);
		break;
	case SYS_VTCR_EL2:
		insn_callback(insn, on_msr_vtcr, QEMU_PLUGIN_CB_RW_REGS, word, vaddr);
		break;
	case SYS_ESR_EL1:
	case SYS_ESR_EL2:
		insn_callback(insn, on_msr_esr, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		break;
	case SYS_TPIDR_EL2:
		insn_callback(insn, on_msr_tpidr, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		break;
	}
}

static bool completes_flush(uint64_t vaddr)
{
	unsigned int i;

	for (i = 0; i < options.nr_flush_at; i++)
		if (options.flush_at[i] == vaddr)
			return true;
	return false;
}

/* The word in front of a block, 0 if it cannot be read. */
static uint32_t word_before(struct qemu_plugin_insn *insn, uint64_t vaddr)
{
	const uint32_t *host = qemu_plugin_insn_haddr(insn);
	GByteArray *bytes;
	uint32_t word = 0;

	if (host && (vaddr & 0xfff))
		return GUINT32_FROM_LE(host[-1]);	/* within the page: no walk needed */
	bytes = g_byte_array_new();
	if (qemu_plugin_read_memory_vaddr(vaddr - 4, bytes, 4) && bytes->len == 4)
		memcpy(&word, bytes->data, 4);
	g_byte_array_free(bytes, TRUE);
	return GUINT32_FROM_LE(word);
}

static void on_translation(struct qemu_plugin_tb *tb, void *userdata)
{
	size_t count = qemu_plugin_tb_n_insns(tb), i;
	uint32_t before = 0;

	(void)userdata;
	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t vaddr = qemu_plugin_insn_vaddr(insn);
		uint32_t word;

		if (qemu_plugin_insn_data(insn, &word, 4) != 4)
			continue;	/* T32 */
		word = GUINT32_FROM_LE(word);
		if (i == 0) {
			/* An exception begins a block at its vector. */
			if ((vaddr & 0x5ff) == 0x400)
				insn_callback(insn, on_vector, QEMU_PLUGIN_CB_RW_REGS_PC, word,
					      vaddr);
			before = word_before(insn, vaddr);
		}
		if (insn_is_msr_vtcr(before))
			insn_callback(insn, on_after_msr_vtcr, QEMU_PLUGIN_CB_RW_REGS, word, vaddr);
		before = word;

		if (insn_is_mrs(word))
			translate_mrs(insn, word, vaddr);
		else if (insn_is_msr(word))
			translate_msr(insn, word, vaddr);
		else if (insn_is_eret(word))
			insn_callback(insn, on_eret, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (insn_is_smc(word))
			insn_callback(insn, on_smc, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (interceptor.choices.late && insn_is_dsb(word))
			insn_callback(insn, on_dsb, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (interceptor.choices.late && insn_is_isb(word))
			insn_callback(insn, on_isb, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (interceptor.choices.lazy && insn_is_tlbi_stage2(word))
			insn_callback(insn, on_tlbi, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (word == INSN_HINT_127)
			insn_callback(insn, on_hint, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
		else if (completes_flush(vaddr))
			insn_callback(insn, on_flush_return, QEMU_PLUGIN_CB_R_REGS, word, vaddr);
	}
}

/* Too late for QEMU to refuse the plugin; a half-working one would mislead. */
static void __attribute__((noreturn)) die(const char *format, const char *what)
{
	fputs("hdbss: ", stderr);
	fprintf(stderr, format, what);
	fputc('\n', stderr);
	_exit(1);
}

static void on_vcpu_init(unsigned int index, void *userdata)
{
	struct vcpu *vcpu = vcpu_at(index);
	const char *missing;
	char error[512];

	(void)userdata;
	if (!vcpu)
		die("%s", "QEMU has more vCPUs than it said");
	/* Not at installation: the file has no content before the machine exists. */
	if (!interceptor.ram.host) {
		if (!ram_map(&interceptor.ram, options.ram, error, sizeof(error)) ||
		    !ram_is_shared(&interceptor.ram, options.ram, error, sizeof(error)))
			die("%s", error);
		interceptor.memory = ram_memory(&interceptor.ram);
		if (interceptor.trace)
			trace_set_ram(interceptor.trace, interceptor.ram.base,
				      interceptor.ram.size);
	}
	missing = regs_init();
	if (missing)
		die("QEMU's CPU has no register %s: use -M virt,virtualization=on and -cpu max",
		    missing);
	/* The access flag and, without HDBSS, dirty state are QEMU's business. */
	if ((reg_read(REG_ID_AA64MMFR1_EL1) & ID_HAFDBS) < HAFDBS_AF_DIRTY)
		die("QEMU's CPU has no %s: use -cpu max", "FEAT_HAFDBS");
	vcpu_bind(index);
	vcpu->pe.choices = interceptor.choices;
	vcpu->pe.injector = &interceptor.injector;
	vcpu_reset_registers(vcpu, reg_read(REG_VTCR_EL2), interceptor.trace);
}

static void on_exit_of_qemu(void *userdata)
{
	unsigned int i;

	(void)userdata;
	for (i = 0; i < vcpus_count(); i++) {
		const struct pe *pe = &vcpu_at(i)->pe;

		fprintf(stderr,
			"hdbss: PE %u: %llu entries, %llu refusals, %llu guest entries, %llu anomalies\n",
			i, (unsigned long long)pe->entries, (unsigned long long)pe->refusals,
			(unsigned long long)pe->entries_to_guest,
			(unsigned long long)pe->anomalies);
	}
	watch_close();
	if (interceptor.trace)
		trace_close(interceptor.trace);
}

static bool parse_flush_fd(const char *value)
{
	char *end;
	unsigned long fd = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || fd > INT_MAX || fcntl((int)fd, F_GETFD) < 0) {
		fprintf(stderr, "hdbss: flush-fd=%s: it is no open file\n", value);
		return false;
	}
	options.flush_fd = (int)fd;
	return true;
}

/* Hexadecimal addresses with colons between them */
static bool parse_flush_at(const char *value)
{
	const char *at = value;
	char *end;

	for (; options.nr_flush_at < FLUSH_RETURNS_MAX; at = end + 1) {
		options.flush_at[options.nr_flush_at++] = strtoull(at, &end, 16);
		if (end == at || (*end && *end != ':'))
			break;
		if (!*end)
			return true;
	}
	fprintf(stderr, "hdbss: flush-at=%s: give at most %u addresses, ADDR:ADDR..\n", value,
		FLUSH_RETURNS_MAX);
	return false;
}

static bool parse_option(char *option)
{
	char *value = strchr(option, '='), *end;

	if (!value) {
		fprintf(stderr, "hdbss: option %s needs a value: %s=...\n", option, option);
		return false;
	}
	*value++ = '\0';
	if (!strcmp(option, "ram")) {
		options.ram = strdup(value);
	} else if (!strcmp(option, "trace")) {
		options.trace = strdup(value);
	} else if (!strcmp(option, "trace-limit")) {
		options.trace_limit = strtoull(value, &end, 10);
		if (*value < '0' || *value > '9' || *end || options.trace_limit < 2 ||
		    options.trace_limit > TRACE_LIMIT_MAX) {
			fprintf(stderr, "hdbss: trace-limit=%s: give a number from 2 to %llu\n",
				value, TRACE_LIMIT_MAX);
			return false;
		}
	} else if (!strcmp(option, "flush-fd")) {
		return parse_flush_fd(value);
	} else if (!strcmp(option, "flush-at")) {
		return parse_flush_at(value);
	} else if (!strcmp(option, "inject")) {
		if (!inject_add(&interceptor.injector, value)) {
			fprintf(stderr, "hdbss: inject=%s..: it is none, or one too many\n",
				value);
			return false;
		}
	} else if (choices_known(option)) {
		if (!choices_set(&interceptor.choices, option, value)) {
			fprintf(stderr, "hdbss: %s=%s: the choice has no such value\n", option,
				value);
			return false;
		}
	} else {
		fprintf(stderr,
			"hdbss: unknown option %s: use ram=, trace=, trace-limit=, flush-fd=, flush-at=, inject= and the choices of hdbss run --choices\n",
			option);
		return false;
	}
	return true;
}

QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
				    char **argv)
{
	char error[512];
	int i;

	if (!qemu_api_usable(info))
		return -1;
	for (i = 0; i < argc; i++)
		if (!parse_option(argv[i]))
			return -1;
	if (!options.ram) {
		fputs("hdbss: option ram= is missing: name the mem-path= of the machine's memory-backend-file\n",
		      stderr);
		return -1;
	}
	if (options.trace) {
		interceptor.trace = trace_open(options.trace, options.trace_limit,
					       (uint32_t)info->system.max_vcpus, error,
					       sizeof(error));
		if (!interceptor.trace) {
			fprintf(stderr, "hdbss: %s\n", error);
			return -1;
		}
	}
	if (!vcpus_init((unsigned int)info->system.max_vcpus, interceptor.trace)) {
		fputs("hdbss: no memory for the vCPUs\n", stderr);
		return -1;
	}
	if (options.flush_fd >= 0)
		watch_open(options.flush_fd);
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init, NULL);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
	qemu_plugin_register_vcpu_discon_cb(
		id, QEMU_PLUGIN_DISCON_INTERRUPT | QEMU_PLUGIN_DISCON_EXCEPTION, on_discontinuity,
		NULL);
	qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
	return 0;
}

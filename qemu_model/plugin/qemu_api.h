/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of QEMU's plugin API, version 7 (QEMU 11.1), that the interceptor
 * uses. No distribution ships the header, so the few declarations stand here,
 * from the API reference. This file and qemu_api.c are all that depends on the
 * version.
 */
#ifndef HDBSS_QEMU_API_H
#define HDBSS_QEMU_API_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_PLUGIN_VERSION	7

#define QEMU_EXPORT	__attribute__((visibility("default")))
/* Weak: an older QEMU then says which version it wants, not which symbol it lacks. */
#define QEMU_IMPORT	__attribute__((weak))

typedef uint64_t qemu_plugin_id_t;

typedef struct qemu_info_t {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
	struct {
		int smp_vcpus;
		int max_vcpus;
	} system;
} qemu_info_t;

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_register;

enum qemu_plugin_cb_flags {
	QEMU_PLUGIN_CB_NO_REGS,
	QEMU_PLUGIN_CB_R_REGS,
	QEMU_PLUGIN_CB_RW_REGS,
	QEMU_PLUGIN_CB_RW_REGS_PC,
};

enum qemu_plugin_discon_type {
	QEMU_PLUGIN_DISCON_INTERRUPT = 1 << 0,
	QEMU_PLUGIN_DISCON_EXCEPTION = 1 << 1,
	QEMU_PLUGIN_DISCON_HOSTCALL = 1 << 2,
};

typedef struct {
	struct qemu_plugin_register *handle;
	const char *name;
	const char *feature;
	bool is_readonly;
} qemu_plugin_reg_descriptor;

typedef void (*qemu_plugin_udata_cb_t)(void *userdata);
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu_index, void *userdata);
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(struct qemu_plugin_tb *tb, void *userdata);
typedef void (*qemu_plugin_vcpu_discon_cb_t)(unsigned int vcpu_index,
					     enum qemu_plugin_discon_type type, uint64_t from_pc,
					     uint64_t to_pc, void *userdata);

/* What QEMU looks for in the plugin */
extern QEMU_EXPORT int qemu_plugin_version;
QEMU_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
				    char **argv);

/* What the plugin finds in QEMU */
QEMU_IMPORT void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id,
						   qemu_plugin_vcpu_udata_cb_t cb, void *userdata);
QEMU_IMPORT void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
						       qemu_plugin_vcpu_tb_trans_cb_t cb,
						       void *userdata);
QEMU_IMPORT void qemu_plugin_register_vcpu_discon_cb(qemu_plugin_id_t id,
						     enum qemu_plugin_discon_type type,
						     qemu_plugin_vcpu_discon_cb_t cb,
						     void *userdata);
QEMU_IMPORT void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb,
						void *userdata);
QEMU_IMPORT void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
							qemu_plugin_vcpu_udata_cb_t cb,
							enum qemu_plugin_cb_flags flags,
							void *userdata);

QEMU_IMPORT size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
QEMU_IMPORT struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
							     size_t index);
QEMU_IMPORT size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest,
					 size_t len);
QEMU_IMPORT uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
/* Where QEMU itself reads the instruction, NULL if it is not in RAM. */
QEMU_IMPORT void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
QEMU_IMPORT bool qemu_plugin_read_memory_vaddr(uint64_t addr, GByteArray *data, size_t len);

QEMU_IMPORT GArray *qemu_plugin_get_registers(void);
QEMU_IMPORT bool qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *buf);
QEMU_IMPORT bool qemu_plugin_write_register(struct qemu_plugin_register *handle, GByteArray *buf);
/* Does not return: leaves the callback by longjmp. */
QEMU_IMPORT void qemu_plugin_set_pc(uint64_t vaddr) __attribute__((noreturn));

/* false, with one line on stderr, if this QEMU does not speak our version. */
bool qemu_api_usable(const qemu_info_t *info);

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent: PID 1 of the kernel under test. It carries out /program against
 * KVM and reports on its channel what it saw; it judges nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel.h"
#include "creator.h"
#include "frame.h"
#include "kernelfile.h"
#include "klog.h"
#include "ops.h"
#include "program.h"
#include "truth.h"
#include "vm.h"
#include "watchdog.h"

#define PROGRAM_PATH "/program"
#define PROGRAM_MAX (4u << 20)

enum phase { PHASE_BEGIN, PHASE_END };

/*
 * A hint that no PE knows and that the interceptor records, with x0: it gives
 * trace and observations a common order.
 */
static inline void mark(unsigned int line, enum phase phase)
{
	register uint64_t x0 __asm__("x0") = (uint64_t)line << 1 | phase;

	__asm__ volatile("hint #127" : : "r"(x0) : "memory");
}

/* Kernels differ in which of these files they have: a missing one is no error. */
static void set_file(const char *path, const char *value)
{
	if (kernelfile_write(path, value) < 0 && errno != ENOENT)
		perror(path);
}

static void set_up_system(void)
{
	char path[80];
	long cpu;
	int fd;

	mkdir("/proc", 0555);
	mkdir("/sys", 0555);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	/* Without /dev/console in the initramfs, 0 to 2 are not open yet. */
	do {
		fd = open("/dev/console", O_RDWR | O_NOCTTY);
	} while (fd >= 0 && fd < 2);
	if (fd > 2)
		close(fd);
	/* Huge pages where a slot asks for them, whatever the config's default. */
	set_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	/*
	 * A vCPU with `pin fifo` is to be preempted by nobody: neither by the
	 * bandwidth limit of older kernels nor by the fair server of newer ones.
	 */
	set_file("/proc/sys/kernel/sched_rt_runtime_us", "-1");
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	for (cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/sched/fair_server/cpu%ld/runtime", cpu);
		set_file(path, "0");
	}
}

__attribute__((noreturn)) static void power_off(void)
{
	channel_drain();
	reboot(RB_POWER_OFF);
	for (;;)	/* PID 1 must not return */
		pause();
}

__attribute__((noreturn, format(printf, 1, 2))) static void fatal(const char *fmt, ...)
{
	char text[256], encoded[768];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	frame_encode(encoded, sizeof(encoded), text, strnlen(text, n > 0 ? sizeof(text) : 0));
	channel_send(0, "fatal text=%s", encoded);
	power_off();
}

static char *read_program(size_t *len)
{
	int fd = open(PROGRAM_PATH, O_RDONLY | O_CLOEXEC);
	char *buf = malloc(PROGRAM_MAX);
	ssize_t n = 1;

	if (fd < 0 || !buf)
		fatal("cannot open %s: %s", PROGRAM_PATH, strerror(errno));
	for (*len = 0; *len < PROGRAM_MAX && n > 0; *len += n > 0 ? (size_t)n : 0)
		n = read(fd, buf + *len, PROGRAM_MAX - *len);
	if (n != 0)
		fatal("cannot read %s: %s", PROGRAM_PATH, n < 0 ? strerror(errno) : "too long");
	close(fd);
	return buf;
}

static void do_op(struct vm *vm, unsigned int line, const struct op *op)
{
	const char *name = op->spec->name;
	struct result r = { 0 };

	channel_send(line, "begin op=%s", name);
	watchdog_arm(line, name, vm_limit(vm, op));
	mark(line, PHASE_BEGIN);
	op_execute(vm, line, op, &r);
	mark(line, PHASE_END);
	watchdog_disarm();
	result_send(&r, line, name);
}

static void do_line(struct vm *vm, unsigned int line, const char *text, size_t len)
{
	char encoded[128];
	const char *why;
	struct op op;

	switch (program_parse_line(text, len, &op, &why)) {
	case PROGRAM_EMPTY:
		break;
	case PROGRAM_OP:
		do_op(vm, line, &op);
		break;
	case PROGRAM_BAD:
		frame_encode(encoded, sizeof(encoded), why, strlen(why));
		channel_send(line, "result op=%s ret=-1 errno=%d errname=EINVAL error=parse text=%s",
			     op.spec ? op.spec->name : "-", EINVAL, encoded);
		break;
	}
}

int main(void)
{
	static struct vm vm;
	unsigned int line = 0;
	size_t len, pos = 0, line_len;
	const char *text, *why;
	char *program;

	set_up_system();
	if (channel_open() < 0) {
		perror("agent: no serial port for the channel");
		power_off();
	}
	channel_send(0, "hello version=1 cpus=%ld pagesize=%ld", sysconf(_SC_NPROCESSORS_ONLN),
		     sysconf(_SC_PAGESIZE));
	if ((unsigned long)sysconf(_SC_PAGESIZE) != PAGE_BYTES)
		fatal("the kernel has pages of %ld bytes, the agent knows %llu: use CONFIG_ARM64_4K_PAGES",
		      sysconf(_SC_PAGESIZE), PAGE_BYTES);
	if (klog_open() < 0)
		fatal("cannot open /dev/kmsg: %s", strerror(errno));
	if (watchdog_start() < 0)
		fatal("cannot start the watchdog: %s", strerror(errno));
	vcpu_signal_setup();
	vm_init(&vm);
	program = read_program(&len);
	while (program_next_line(program, len, &pos, &text, &line_len))
		do_line(&vm, ++line, text, line_len);
	watchdog_arm(0, "end", 0);
	if (creator_active())
		creator_wait(LIMIT_DEFAULT_MS, &why);
	if (vm.fd >= 0)
		vm_destroy(&vm, &why);
	channel_send(0, "bye lines=%u", line);
	power_off();
}

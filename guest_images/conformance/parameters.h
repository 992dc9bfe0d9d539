/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the program is told, in words KEY=VALUE separated by blanks: fw_cfg file
 * opt/hdbss/conformance (QEMU: -fw_cfg name=opt/hdbss/conformance,string=...).
 *
 *   tests=NAME,NAME..    groups, or tests as GROUP.NAME; without it all
 *   stops=yes            every event of a PE stops the machine: small numbers, please
 *   NAME=VALUE           choices of the PE, as in qemu_model/model/choices.py
 *   inject=WHAT:KEY=VALUE:..   what is injected, as in qemu_model/model/injection.py
 */
#ifndef PARAMETERS_H
#define PARAMETERS_H

#include <stdbool.h>
#include <stdint.h>

void parameters_read(void);
/* All of them, as they were given. */
const char *parameters_text(void);
/* Whether there is a word KEY=@value. */
bool parameter_is(const char *key, const char *value);
/* The number in KEY=NUMBER, @missing without one. */
uint64_t parameter_number(const char *key, uint64_t missing);
/* Whether a test is to be run. */
bool parameter_selects(const char *group, const char *test);
/* The same about a word of the first (and only) inject=; false or @missing without it. */
bool injection_is(const char *key, const char *value);
uint64_t injection_number(const char *key, uint64_t missing);
/* Whether @what is injected; "" asks whether anything is. */
bool injected(const char *what);

#endif

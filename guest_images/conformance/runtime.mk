# SPDX-License-Identifier: GPL-2.0-or-later
# What every program at EL2 is built of: $(RUNTIME) with $(LINK), which gets -o and sources.

CONFORMANCE := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
RUNTIME := $(addprefix $(CONFORMANCE),start.S guest.S bare.c stage2.c ktap.c parameters.c)
HEADERS := $(wildcard $(CONFORMANCE)*.h) $(CONFORMANCE)runtime.mk
# strict alignment and no vector registers: EL2 runs without MMU and FP
LINK := $(CROSS_COMPILE)gcc -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic \
	-mgeneral-regs-only -mstrict-align -mno-outline-atomics -fno-stack-protector -Wno-main \
	-march=armv8.1-a -fno-tree-loop-distribute-patterns -I$(CONFORMANCE) -nostdlib -static \
	-Wl,-Ttext=0x40080000 -Wl,--build-id=none -Wl,-z,noexecstack

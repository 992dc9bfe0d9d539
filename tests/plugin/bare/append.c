// SPDX-License-Identifier: GPL-2.0-or-later
/* Registers, and which stage 2 updates append an entry. */
#include "bare.h"

static struct guest guest;
static struct stage2 s2;
static u64 buffer;

static void registers(void)
{
	u64 value;

	check_equal("ID_AA64MMFR1_EL1.HAFDBS is 4", sysreg_read(id_aa64mmfr1_el1) & 15, 4);
	asm volatile("mrs xzr, id_aa64mmfr1_el1");
	hdbssbr_write(~0ull);
	check_equal("HDBSSBR_EL2 RES0", hdbssbr_read(), 0x00fffffffffff00full);
	hdbssprod_write(~0ull);
	check_equal("HDBSSPROD_EL2 RES0", hdbssprod_read(), 0xfc07ffffull);
	asm volatile("msr s3_4_c2_c3_3, xzr");
	check_equal("MSR from XZR writes 0", hdbssprod_read(), 0);
	hdbssbr_write(0x123456000ull);
	check_equal("the two registers are two", hdbssbr_read(), 0x123456000ull);
	asm volatile("mrs xzr, s3_4_c2_c3_2");
	asm volatile("mov x9, #-1\n\tmrs x9, s3_4_c2_c3_3\n\tmov %0, x9" : "=r"(value) : : "x9");
	check_equal("HDBSSPROD_EL2 untouched by HDBSSBR_EL2", value, 0);
}

/* Store to a page with these attributes; returns the number of new entries. */
static u64 entries_of(const char *code, u64 ipa)
{
	u64 before = hdbssprod_read() & 0x7ffff;

	check("the guest ends", ended(run(&guest, code, ipa, 0x1234, 1, 4096)));
	return (hdbssprod_read() & 0x7ffff) - before;
}

static volatile u64 *page(unsigned int number, u64 attributes)
{
	volatile u64 *descriptor = stage2_map(&s2, DATA + number * 4096, DATA + number * 4096, 3,
					      attributes);

	tlb_flush();
	return descriptor;
}

static void appends(void)
{
	volatile u64 *d = page(0, CLEAN);
	u64 esr;

	check_equal("a store to a writable-clean page appends",
		    entries_of(guest_store, DATA + 0x128), 1);
	check_equal("the entry", *at(buffer), DATA | 7);
	check_equal("the descriptor is dirty", *d, DATA | CLEAN | S2AP_W | 3);
	check_equal("the store was made", *at(DATA + 0x128), 0x1234);
	check_equal("no entry for a dirty page", entries_of(guest_store, DATA), 0);
	check_equal("HCR_EL2 is the guest's", sysreg_read(hcr_el2) & HCR_VM, HCR_VM);

	page(1, READ_WRITE);
	check_equal("no entry for DBM=0", entries_of(guest_store, DATA + 0x1000), 0);
	page(2, READ_WRITE | DBM);
	check_equal("no entry for made dirty by software",
		    entries_of(guest_store, DATA + 0x2000), 0);
	d = page(3, CLEAN & ~AF);
	check_equal("no entry for AF alone", entries_of(guest_load, DATA + 0x3000), 0);
	check_equal("AF is set", *d & (AF | S2AP_W), AF);
	d = page(4, CLEAN & ~AF);
	check_equal("one entry for AF and dirty", entries_of(guest_store, DATA + 0x4000), 1);
	check_equal("AF and dirty are set", *d & (AF | S2AP_W), AF | S2AP_W);
	d = page(5, CLEAN & ~S2AP_R);
	check_equal("one entry for a write-only page", entries_of(guest_store, DATA + 0x5000), 1);
	check_equal("it stays write-only", *d & (S2AP_R | S2AP_W), S2AP_W);

	page(6, READ_ONLY);
	esr = run(&guest, guest_store, DATA + 0x6000, 1, 1, 0);
	check_equal("read-only faults", ESR_EC(esr), EC_DABT);
	check_equal("with the permission code", ESR_FSC(esr), 0x0f);
	check_equal("without HDBSSF", esr & ESR_HDBSSF, 0);
	page(6, CLEAN);
	check("the same access goes on", ended(run_on(&guest)));
	check_equal("by an append", *at(buffer + 3 * 8), (DATA + 0x6000) | 7);
	esr = run(&guest, guest_store, DATA + 0x100000, 1, 1, 0);
	check_equal("unmapped faults with the translation code", ESR_FSC(esr), 0x07);
}

static void instructions(void)
{
	page(16, CLEAN);
	check_equal("LDADD appends once", entries_of(guest_ldadd, DATA + 0x10000), 1);
	check_equal("and adds once", *at(DATA + 0x10000), 0x1234);
	page(17, CLEAN);
	check_equal("STXR appends once", entries_of(guest_stxr, DATA + 0x11000), 1);
	check_equal("and stores once", *at(DATA + 0x11000), 0x1234);
	page(18, CLEAN);
	page(19, CLEAN);
	check_equal("STP over two pages appends twice",
		    entries_of(guest_stp, DATA + 0x12ff8), 2);
	page(20, CLEAN);
	*at(DATA + 0x14000) = ~0ull;
	check_equal("DC ZVA appends once", entries_of(guest_zva, DATA + 0x14000), 1);
	check_equal("and zeroes", *at(DATA + 0x14000), 0);
}

static void disabled(void)
{
	static const u64 bits[] = {
		0, VTCR_HA, VTCR_HD, VTCR_HA | VTCR_HD, VTCR_HDBSS, VTCR_HDBSS | VTCR_HA,
		VTCR_HDBSS | VTCR_HD,
	};
	unsigned int i;

	for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		u64 before = hdbssprod_read(), esr;
		volatile u64 *d;

		stage2_use(&s2, bits[i], 0);
		check_equal("VTCR_EL2 reads as written", sysreg_read(vtcr_el2), s2.vtcr | bits[i]);
		d = page(32, CLEAN);
		esr = run(&guest, guest_store, DATA + 0x20000, 1, 1, 0);
		check_equal("no entry unless HA, HD and HDBSS", hdbssprod_read(), before);
		if ((bits[i] & (VTCR_HA | VTCR_HD)) == (VTCR_HA | VTCR_HD)) {
			check("HA and HD alone dirty", ended(esr) && (*d & S2AP_W));
		} else {
			check_equal("else it is an ordinary fault", ESR_FSC(esr), 0x0f);
			check_equal("with no HDBSSF", esr & ESR_HDBSSF, 0);
		}
	}
	stage2_use(&s2, VTCR_TRACK, 0);
	sysreg_write(hcr_el2, HCR_RW);
	page(33, CLEAN);
	check_equal("no entry with HCR_EL2.VM=0", entries_of(guest_store, DATA + 0x21000), 0);
	stage2_use(&s2, VTCR_TRACK, 0);
	check_equal("an entry with VM=1 again", entries_of(guest_store, DATA + 0x21000), 1);
}

static void el1_access(void)
{
	u64 esr;

	sysreg_write(vbar_el1, (u64)guest_vectors);
	esr = run(&guest, guest_msr_hdbss, 0x5000, 0, 0, 0);
	check("at EL1 the register is UNDEFINED", ESR_EC(esr) == EC_HVC && (esr & 0xffff) == 2);
	check_equal("at EL1, not by a trap", ESR_EC(guest.x[1]), EC_UNKNOWN);
	check_equal("and nothing was written", hdbssbr_read(), buffer);
}

void main(void)
{
	registers();
	buffer = take(4096);
	stage2_init(&s2, 12, 1, 39, false);
	stage2_map_code(&s2, 3, READ_ONLY);
	hdbssbr_write(buffer);
	hdbssprod_write(0);
	stage2_use(&s2, VTCR_TRACK, 0);
	check_equal("VTCR_EL2 reads as written", sysreg_read(vtcr_el2), s2.vtcr | VTCR_TRACK);
	appends();
	instructions();
	disabled();
	el1_access();
}

/* Penalties: how they grow and end, who is hit by them and who is not, and that a flood erases
 * none. */
#include "auth/penalty.h"

#include "base/tap.h"

static const uint8_t seed[PENALTY_SEED_SIZE] = { 2, 7, 1 };
static const int64_t second = PENALTY_SECOND;

static struct addr ip4(uint32_t n)
{
	struct addr a = { .family = ADDR_IP4, .port = (uint16_t)n };

	a.ip[0] = 192;
	memcpy(a.ip + 1, &n, 3);
	return a;
}

static struct addr ip6(uint8_t net, uint8_t host)
{
	struct addr a = { .family = ADDR_IP6 };

	a.ip[0] = 0x20;
	a.ip[7] = net;
	a.ip[15] = host;
	return a;
}

static void fail_times(struct penalty *p, int64_t now, const struct addr *from, str name, int times)
{
	for (int i = 0; i < times; i++)
		penalty_failure(p, now, from, name, STR_EMPTY);
}

static void growing(void)
{
	static const int64_t wanted[] = { 0, 1, 2, 4, 8, 15, 15 };
	struct penalty *p = penalty_new(100, seed);
	struct addr a = ip4(1), b = ip4(2);
	struct penalty_verdict v;
	char text[PENALTY_TEXT_SIZE];

	tap_group("growing");
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		v = penalty_check(p, 0, &a, S("alice"));
		EQ(v.delay_ns, wanted[i] * second);
		EQ(v.refused_ns, 0);
		penalty_failure(p, 0, &a, S("alice"), STR_EMPTY);
	}
	EQ(penalty_check(p, 0, &b, S("alice")).delay_ns, 0);

	tap_group("refusing");
	fail_times(p, 0, &a, S("bob"), PENALTY_REFUSE_AFTER - 1 - (int)ARRAY_LEN(wanted));
	EQ(penalty_check(p, 0, &a, S("alice")).refused_ns, 0);
	penalty_failure(p, 7, &a, S("bob"), STR_EMPTY);
	v = penalty_check(p, 8, &a, S("carol"));
	EQ(v.refused_ns, PENALTY_REFUSE_NS - 1);
	STR_EQ(penalty_text(&v, text),
	       S("too many wrong passwords from your address; try again in 10 minutes"));
	EQ(penalty_check(p, 7 + PENALTY_REFUSE_NS - 1, &a, S("alice")).refused_ns, 1);
	v = penalty_check(p, 7 + PENALTY_REFUSE_NS, &a, S("alice"));
	EQ(v.refused_ns, 0);
	EQ(v.delay_ns, 0);
	/* Everybody else, in the same account too, goes on as ever. */
	v = penalty_check(p, 8, &b, S("alice"));
	EQ(v.refused_ns, 0);
	EQ(v.delay_ns, 0);
	penalty_free(p);
}

/* A webmail on this machine: many names, one address. */
static void shared(void)
{
	struct addr here = { .family = ADDR_IP4, .ip = { 127, 0, 0, 1 } },
		    six = { .family = ADDR_IP6, .ip = { [15] = 1 } };
	struct penalty *p = penalty_new(100, seed);

	tap_group("this machine");
	for (int i = 0; i < 2; i++) {
		const struct addr *a = i ? &six : &here;

		fail_times(p, 0, a, S("alice"), 2 * PENALTY_REFUSE_AFTER);
		EQ(penalty_check(p, 0, a, S("bob")).delay_ns, 0);
		EQ(penalty_check(p, 0, a, S("bob")).refused_ns, 0);
		EQ(penalty_check(p, 0, a, S("alice")).delay_ns, PENALTY_DELAY_MAX_NS);
		EQ(penalty_check(p, 0, a, S("alice")).refused_ns, 0);
		penalty_success(p, 0, a, S("alice"));
		EQ(penalty_check(p, 0, a, S("alice")).delay_ns, 0);
	}
	EQ(penalty_addresses(p), 0);
	penalty_free(p);
}

static void window(void)
{
	struct penalty *p = penalty_new(100, seed);
	struct addr a = ip4(1);

	tap_group("window");
	fail_times(p, 5, &a, S("alice"), 3);
	EQ(penalty_check(p, 5 + PENALTY_WINDOW_NS - 1, &a, S("alice")).delay_ns, 4 * second);
	EQ(penalty_check(p, 5 + PENALTY_WINDOW_NS, &a, S("alice")).delay_ns, 0);
	penalty_failure(p, 5 + PENALTY_WINDOW_NS, &a, S("alice"), STR_EMPTY);
	EQ(penalty_check(p, 6 + PENALTY_WINDOW_NS, &a, S("alice")).delay_ns, second);
	penalty_free(p);
}

static void forgiving(void)
{
	struct penalty *p = penalty_new(100, seed);
	struct addr a = ip4(1);

	tap_group("success");
	fail_times(p, 0, &a, S("alice"), 3);
	penalty_success(p, 0, &a, S("Alice"));
	EQ(penalty_check(p, 0, &a, S("alice")).delay_ns, 0);
	/* One's own account does not wash off tries at others. */
	fail_times(p, 0, &a, S("bob"), 3);
	penalty_success(p, 0, &a, S("alice"));
	EQ(penalty_check(p, 0, &a, S("bob")).delay_ns, 4 * second);
	fail_times(p, 0, &a, S("bob"), PENALTY_REFUSE_AFTER - 3);
	penalty_success(p, 0, &a, S("alice"));
	OK(penalty_check(p, 0, &a, S("bob")).refused_ns > 0);

	tap_group("the same wrong password");
	a = ip4(3);
	for (int i = 0; i < 50; i++)
		penalty_failure(p, i, &a, S("alice"), S("old password"));
	EQ(penalty_check(p, 50, &a, S("alice")).delay_ns, second);
	penalty_failure(p, 50, &a, S("alice"), S("another"));
	penalty_failure(p, 50, &a, S("bob"), S("another"));
	EQ(penalty_check(p, 50, &a, S("alice")).delay_ns, 4 * second);
	penalty_free(p);
}

static void names(void)
{
	struct penalty *p = penalty_new(1000, seed);
	struct addr home = ip4(1), stranger;

	tap_group("an account attacked from everywhere");
	penalty_success(p, 0, &home, S("alice"));
	for (uint32_t i = 0; i < PENALTY_NAME_FREE + 10; i++) {
		stranger = ip4(100 + i);
		penalty_failure(p, 1, &stranger, i % 2 ? S("alice") : S("ALICE"), STR_EMPTY);
		if (i < PENALTY_NAME_FREE) {
			stranger = ip4(99);
			EQ(penalty_check(p, 1, &stranger, S("alice")).delay_ns, 0);
		}
	}
	stranger = ip4(99);
	EQ(penalty_check(p, 1, &stranger, S("alice")).delay_ns, 15 * second);
	EQ(penalty_check(p, 1, &stranger, S("alice")).refused_ns, 0);
	EQ(penalty_check(p, 1, &stranger, S("bob")).delay_ns, 0);
	EQ(penalty_check(p, 1, &home, S("alice")).delay_ns, 0);
	EQ(penalty_check(p, 1 + PENALTY_WINDOW_NS, &stranger, S("alice")).delay_ns, 0);
	penalty_free(p);
}

static void networks(void)
{
	struct penalty *p = penalty_new(100, seed);
	struct addr a = ip6(1, 1), same = ip6(1, 2), other = ip6(2, 1);

	tap_group("IPv6 by /64");
	fail_times(p, 0, &a, S("alice"), PENALTY_REFUSE_AFTER);
	OK(penalty_check(p, 0, &same, S("alice")).refused_ns > 0);
	EQ(penalty_check(p, 0, &other, S("alice")).refused_ns, 0);
	penalty_free(p);
}

static void flood(void)
{
	enum { MAX_ENTRIES = 64 };
	struct penalty *p = penalty_new(MAX_ENTRIES, seed);
	struct addr guilty = ip4(1), fresh;

	tap_group("a flood");
	fail_times(p, 0, &guilty, S("alice"), PENALTY_REFUSE_AFTER);
	for (uint32_t i = 0; i < 100 * MAX_ENTRIES; i++) {
		char name[32];

		fresh = ip4(1000 + i);
		snprintf(name, sizeof(name), "name%u", i);
		fail_times(p, 0, &fresh, str_from_c(name), 1 + (int)(i % 7));
	}
	EQ(penalty_addresses(p), MAX_ENTRIES);
	OK(penalty_check(p, 0, &guilty, S("alice")).refused_ns > 0);

	tap_group("heavy ones of long ago make room");
	for (uint32_t i = 0; i < MAX_ENTRIES; i++) {
		fresh = ip4(1 + i);
		fail_times(p, 0, &fresh, S("x"), PENALTY_REFUSE_AFTER);
	}
	for (uint32_t i = 0; i < MAX_ENTRIES; i++) {
		fresh = ip4(500000 + i);
		penalty_failure(p, PENALTY_WINDOW_NS, &fresh, S("y"), STR_EMPTY);
	}
	for (uint32_t i = 0; i < MAX_ENTRIES; i++) {
		fresh = ip4(500000 + i);
		if (penalty_check(p, PENALTY_WINDOW_NS, &fresh, S("z")).delay_ns != second)
			OK(false);
	}
	EQ(penalty_check(p, PENALTY_WINDOW_NS, &fresh, S("z")).delay_ns, second);

	tap_group("long names");
	{
		char big[400];

		memset(big, 'n', sizeof(big));
		penalty_failure(p, 0, &fresh, str_of(big, sizeof(big)), S("x"));
		penalty_success(p, 0, &fresh, STR_EMPTY);
		OK(penalty_check(p, 0, &fresh, str_of(big, sizeof(big))).delay_ns > 0);
	}
	penalty_free(p);
}

int main(void)
{
	growing();
	shared();
	window();
	forgiving();
	names();
	networks();
	flood();
	return tap_done();
}

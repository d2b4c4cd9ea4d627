/* Tests in TAP, run by prove. A test file is a main() of checks, ended by tap_done():
 *
 *	OK(n == 3);
 *	EQ(n, 3);                       // integers: prints both when they differ
 *	STR_EQ(name, S("INBOX"));       // slices
 *	return tap_done();
 *
 * Every check says where it stands. `tap_group("...")` names what follows.
 */
#ifndef BASE_TAP_H
#define BASE_TAP_H

#include "base/str.h"

#include <stdio.h>

struct tap {
	int count, failed;
	const char *group;
};

/* The one state of a test program; tests are not part of the server, where no such variable is. */
static struct tap tap_state __attribute__((unused));

static inline __attribute__((unused)) void tap_group(const char *name)
{
	tap_state.group = name;
}

static inline __attribute__((unused)) int tap_check(int good, const char *what, const char *file,
						    int line)
{
	printf("%sok %d - %s%s%s (%s:%d)\n", good ? "" : "not ", ++tap_state.count,
	       tap_state.group ? tap_state.group : "", tap_state.group ? ": " : "", what, file,
	       line);
	tap_state.failed += !good;
	fflush(stdout);
	return good;
}

static inline __attribute__((unused)) void tap_str(const char *label, str s)
{
	printf("#   %s (%zu): ", label, s.n);
	for (size_t i = 0; i < s.n && i < 400; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c >= 0x20 && c < 0x7f && c != '\\')
			putchar(c);
		else
			printf("\\x%02x", c);
	}
	putchar('\n');
}

static inline __attribute__((unused)) int tap_str_eq(str a, str b, const char *what,
						     const char *file, int line)
{
	int good = tap_check(str_eq(a, b), what, file, line);

	if (!good) {
		tap_str("got", a);
		tap_str("wanted", b);
	}
	return good;
}

static inline __attribute__((unused)) int tap_int_eq(long long a, long long b, const char *what,
						     const char *file, int line)
{
	int good = tap_check(a == b, what, file, line);

	if (!good)
		printf("#   got %lld, wanted %lld\n", a, b);
	return good;
}

#define OK(cond)     tap_check(!!(cond), #cond, __FILE__, __LINE__)
#define EQ(a, b)     tap_int_eq((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)
#define STR_EQ(a, b) tap_str_eq((a), (b), #a " == " #b, __FILE__, __LINE__)

/* A whole file that cannot run because it reads a folder that is absent (../shared alone). */
static inline __attribute__((unused)) int tap_skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	return 0;
}

static inline __attribute__((unused)) int tap_done(void)
{
	printf("1..%d\n", tap_state.count);
	return tap_state.failed ? 1 : 0;
}

#endif

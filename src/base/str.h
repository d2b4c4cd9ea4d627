/* Slices: a pointer and a length, by value.
 *
 * A `str` borrows: it never outlives what it points into, and whoever returns one says what that
 * is. It may hold any bytes, NUL included, and is not NUL-terminated; NUL-terminated strings exist
 * at libc's edge alone. The empty slice has n == 0; its p may be NULL.
 *
 *	str line = S("MAIL FROM:<a@example.org>");
 *	str verb = str_cut(&line, ' ');              // "MAIL", line is now the rest
 *	if (str_case_eq(verb, S("mail"))) ...
 *	printf("%.*s", STR_ARGS(verb));
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	const char *p;
	size_t n;
} str;

#define S(literal)  ((str){ "" literal "", sizeof(literal) - 1 })
#define STR_EMPTY   ((str){ NULL, 0 })
#define STR_ARGS(s) (int)(s).n, (s).n ? (s).p : ""

static inline str str_of(const void *p, size_t n)
{
	return (str){ p, n };
}

static inline str str_from_c(const char *c)
{
	return (str){ c, c ? strlen(c) : 0 };
}

/* From byte `from` on (clipped to the end); at most n bytes of it. */
static inline str str_from(str s, size_t from)
{
	return from >= s.n ? (str){ s.n ? s.p + s.n : s.p, 0 } : (str){ s.p + from, s.n - from };
}

static inline str str_head(str s, size_t n)
{
	return (str){ s.p, n < s.n ? n : s.n };
}

static inline str str_sub(str s, size_t from, size_t n)
{
	return str_head(str_from(s, from), n);
}

static inline bool str_eq(str a, str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII only: protocols fold no other letters. */
static inline char ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static inline char ascii_upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
}

static inline bool ascii_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool ascii_is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool ascii_is_alnum(char c)
{
	return ascii_is_digit(c) || ascii_is_alpha(c);
}

static inline bool ascii_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The value of a hexadecimal digit, or -1. */
static inline int ascii_hex_value(char c)
{
	if (ascii_is_digit(c))
		return c - '0';
	c = ascii_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool str_case_eq(str a, str b);
int str_cmp(str a, str b);	/* memcmp order, the shorter first */
int str_case_cmp(str a, str b); /* the same, ASCII letters folded */
bool str_starts(str s, str prefix);
bool str_ends(str s, str suffix);
bool str_case_starts(str s, str prefix);

#define STR_NONE ((size_t)-1)
/* The position of a byte or of a slice, or STR_NONE. */
size_t str_find_char(str s, char c);
size_t str_rfind_char(str s, char c);
size_t str_find(str s, str needle);
size_t str_case_find(str s, str needle);

/* Everything before the first `sep`, which is dropped; *rest becomes what follows (empty if there
 * is no sep). */
str str_cut(str *rest, char sep);

/* The next line without its CRLF or LF; *rest becomes what follows. */
str str_cut_line(str *rest);

/* Without the white space (space, tab, CR, LF) at both ends. */
str str_trim(str s);

/* The whole slice as a decimal number: digits alone, no sign, no space, at least one.
 * ERR_SYNTAX, or ERR_RANGE above `max`. */
MUST_USE enum err str_to_u64(str s, uint64_t max, uint64_t *out);

/* FNV-1a, for tables whose keys no enemy chooses; base/map.h seeds its own. */
uint64_t str_hash(str s, uint64_t seed);

/* Compares in a time that depends on the lengths alone. */
bool str_secret_eq(str a, str b);

/* Sizes are added and multiplied through these: true when the result fits. */
static inline MUST_USE bool size_add(size_t a, size_t b, size_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

static inline MUST_USE bool size_mul(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* Narrowing that must fit: panics where it does not. */
static inline uint32_t u32_of(uint64_t v)
{
	if (v > UINT32_MAX)
		panic("u32_of: %llu", (unsigned long long)v);
	return (uint32_t)v;
}

static inline uint16_t u16_of(uint64_t v)
{
	if (v > UINT16_MAX)
		panic("u16_of: %llu", (unsigned long long)v);
	return (uint16_t)v;
}

#define ARRAY_LEN(a)			(sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)			((a) < (b) ? (a) : (b))
#define MAX(a, b)			((a) > (b) ? (a) : (b))

#endif

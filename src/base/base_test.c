/* Slices, buffers, arenas: what the rest stands on. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/tap.h"

static void test_str(void)
{
	str rest = S("MAIL FROM:<a@b> SIZE=10");
	uint64_t n = 7;

	tap_group("str");
	STR_EQ(str_cut(&rest, ' '), S("MAIL"));
	STR_EQ(str_cut(&rest, ' '), S("FROM:<a@b>"));
	STR_EQ(str_cut(&rest, ' '), S("SIZE=10"));
	EQ(rest.n, 0);
	OK(str_case_eq(S("InBox"), S("INBOX")));
	OK(!str_case_eq(S("InBox"), S("INBO")));
	OK(str_cmp(S("a"), S("ab")) < 0);
	OK(str_cmp(S("\xff"), S("a")) > 0);
	EQ(str_find(S("hello"), S("ll")), 2);
	EQ(str_find(S("hello"), S("lx")), STR_NONE);
	EQ(str_case_find(S("heLLo"), S("ll")), 2);
	EQ(str_case_find(S("heLLo"), S("hello!")), STR_NONE);
	STR_EQ(str_trim(S(" \t x y \r\n")), S("x y"));
	EQ(str_to_u64(S("18446744073709551615"), UINT64_MAX, &n), ERR_OK);
	OK(n == UINT64_MAX);
	EQ(str_to_u64(S("18446744073709551616"), UINT64_MAX, &n), ERR_RANGE);
	EQ(str_to_u64(S("11"), 10, &n), ERR_RANGE);
	EQ(str_to_u64(S(""), 10, &n), ERR_SYNTAX);
	EQ(str_to_u64(S("+1"), 10, &n), ERR_SYNTAX);
	rest = S("one\r\ntwo\n\nthree");
	STR_EQ(str_cut_line(&rest), S("one"));
	STR_EQ(str_cut_line(&rest), S("two"));
	STR_EQ(str_cut_line(&rest), S(""));
	STR_EQ(str_cut_line(&rest), S("three"));
	OK(str_secret_eq(S("abc"), S("abc")));
	OK(!str_secret_eq(S("abc"), S("abd")));
	OK(!str_secret_eq(S("abc"), S("ab")));
	STR_EQ(str_sub(S("abcdef"), 2, 3), S("cde"));
	STR_EQ(str_sub(S("abcdef"), 9, 3), S(""));
}

static void test_buf(void)
{
	struct buf b;

	tap_group("buf");
	buf_init(&b, 10);
	buf_add(&b, S("0123456789"));
	OK(!buf_failed(&b));
	buf_add_char(&b, 'x');
	OK(buf_failed(&b));
	EQ(buf_len(&b), 10);
	buf_clear(&b);
	buf_printf(&b, "%d-%s", 12, "ab");
	STR_EQ(buf_str(&b), S("12-ab"));
	buf_take(&b, 3);
	STR_EQ(buf_str(&b), S("ab"));
	buf_truncate(&b, 1);
	STR_EQ(buf_str(&b), S("a"));
	buf_free(&b);
	buf_init(&b, 1 << 20);
	for (int i = 0; i < 100000; i++) {
		buf_add(&b, S("abcdefg"));
		if (buf_len(&b) > 50)
			buf_take(&b, 43);
	}
	OK(buf_len(&b) <= 57);
	OK(b.size < 4096);
	buf_clear(&b);
	buf_add_le32(&b, 0x01020304);
	STR_EQ(buf_str(&b), S("\x04\x03\x02\x01"));
	EQ(get_le32(buf_str(&b).p), 0x01020304);
	buf_clear(&b);
	buf_add_u64(&b, 0);
	buf_add_u64(&b, UINT64_MAX);
	STR_EQ(buf_str(&b), S("018446744073709551615"));
	buf_free(&b);
}

static void test_arena(void)
{
	struct arena *a = arena_new(10000);
	char *p;

	tap_group("arena");
	p = arena_alloc(a, 100);
	OK(p && p[0] == 0 && p[99] == 0);
	OK(arena_alloc(a, 7000) != NULL);
	OK(arena_alloc(a, 5000) == NULL);
	arena_reset(a);
	EQ(arena_used(a), 0);
	OK(arena_alloc(a, 5000) != NULL);
	OK(arena_array(a, SIZE_MAX / 2, 4) == NULL);
	STR_EQ(arena_str(a, S("text")), S("text"));
	STR_EQ(arena_printf(a, "%d%%", 5), S("5%"));
	OK(arena_str(a, S("text")).p[4] == 0);
	arena_free(a);
	a = arena_new(100);
	OK(arena_alloc(a, 80) != NULL);
	OK(arena_alloc(a, 80) == NULL);
	OK(arena_alloc(a, 16) != NULL);
	arena_free(a);
}

int main(void)
{
	test_str();
	test_buf();
	test_arena();
	return tap_done();
}

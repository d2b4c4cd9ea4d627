/* The end-of-data decoder: every table entry is fed whole, byte by byte, and split at every
 * position, with the same outcome. */
#include "smtp/data.h"

#include "base/tap.h"

enum { OUT_MAX = 200 * 1024 };

struct run {
	bool is_done;
	unsigned faults;
	size_t used;
};

static struct run feed(str in, size_t first, size_t step, struct buf *out)
{
	struct smtp_data d;
	struct run r = { .used = 0 };

	buf_clear(out);
	smtp_data_init(&d, true);
	for (size_t piece = first; r.used < in.n && !d.is_done; piece = step)
		r.used += smtp_data_decode(&d, str_sub(in, r.used, piece), out);
	r.is_done = d.is_done;
	r.faults = d.faults;
	return r;
}

/* One line of the summary for all the ways of splitting. */
static bool is_same_however_split(str in, struct run want, str text)
{
	struct buf out;
	bool good = true;

	buf_init(&out, OUT_MAX);
	for (size_t first = 1; first <= in.n; first++)
		for (int whole = 0; whole < 2; whole++) {
			struct run r = feed(in, first, whole ? in.n : 1, &out);

			good &= r.is_done == want.is_done && r.faults == want.faults &&
				r.used == want.used && !buf_failed(&out) &&
				(want.faults || str_eq(buf_str(&out), text));
		}
	buf_free(&out);
	return good;
}

static const struct {
	const char *name, *in, *text;
	bool is_done;
	unsigned faults;
	size_t rest; /* bytes behind the end */
} rows[] = {
	{ "empty message", ".\r\n", "", true, 0, 0 },
	{ "one line", "a\r\n.\r\n", "a\r\n", true, 0, 0 },
	{ "empty lines", "\r\n\r\n.\r\n", "\r\n\r\n", true, 0, 0 },
	{ "a pipelined command behind", "a\r\n.\r\nQUIT\r\n", "a\r\n", true, 0, 6 },
	{ "the next end is not ours", ".\r\n.\r\n", "", true, 0, 3 },
	{ "dots are unstuffed", "..\r\n..a\r\n...b\r\n.\r\n", ".\r\n.a\r\n..b\r\n", true, 0, 0 },
	{ "one dot before text", ".a\r\n.\r\n", "a\r\n", true, 0, 0 },
	{ "dots in a line", "a.\r\nb.c\r\n.\r\n", "a.\r\nb.c\r\n", true, 0, 0 },
	{ "not yet", "a\r\n.\r", "a\r\n", false, 0, 0 },
	{ "not yet at the dot", "a\r\n.", "a\r\n", false, 0, 0 },
	{ "LF.LF", "a\n.\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "LF.CRLF", "a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "CRLF.LF", "a\r\n.\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "CR.CR", "a\r.\rb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR, 0 },
	{ "CR.CRLF", "a\r.\r\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR, 0 },
	{ "CR.LF", "a\r.\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF, 0 },
	{ "LF.CR", "a\n.\rb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF, 0 },
	{ "CRLF.CR", "a\r\n.\rb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR, 0 },
	{ "CRLF.CR CRLF", "a\r\n.\r\r\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR, 0 },
	{ "CR CRLF.CRLF is an end", "a\r\r\n.\r\nb", "", true, SMTP_DATA_BARE_CR, 1 },
	{ "LF CR.CRLF", "a\n\r.\r\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_CR | SMTP_DATA_BARE_LF,
	  0 },
	{ "LF first", "\n.\r\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "LF.LF as the beginning", ".\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "LF LF", "a\n\nb\r\n.\r\n", "", true, SMTP_DATA_BARE_LF, 0 },
	{ "two dots", "a\r\n..\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", true, 0, 0 },
	{ "dot space", "a\r\n. \r\nb\r\n.\r\n", "a\r\n \r\nb\r\n", true, 0, 0 },
};

static void test_rows(void)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		str in = str_from_c(rows[i].in);
		struct run want = { rows[i].is_done, rows[i].faults, in.n - rows[i].rest };

		tap_group(rows[i].name);
		OK(is_same_however_split(in, want, str_from_c(rows[i].text)));
	}
	tap_group("NUL");
	OK(is_same_however_split(S("a\0b\r\n.\r\n"), (struct run){ true, SMTP_DATA_NUL, 8 },
				 S("")));
	OK(is_same_however_split(S("a\r\n.\0\r\nb\r\n.\r\n"),
				 (struct run){ true, SMTP_DATA_NUL, 13 }, S("")));
	OK(is_same_however_split(S("a\r\n\0.\r\nb\r\n.\r\n"),
				 (struct run){ true, SMTP_DATA_NUL, 13 }, S("")));
	OK(is_same_however_split(S("a\r\n.\r\n\0"), (struct run){ true, 0, 6 }, S("a\r\n")));
}

static void test_long_lines(void)
{
	struct buf in, out;

	tap_group("line length");
	buf_init(&in, OUT_MAX);
	buf_init(&out, OUT_MAX);
	for (int over = -1; over <= 1; over++) {
		struct run r;

		buf_clear(&in);
		for (int i = 0; i < SMTP_TEXT_LINE_MAX + over; i++)
			buf_add_char(&in, 'x');
		buf_add(&in, S("\r\n.\r\n"));
		r = feed(buf_str(&in), 1000, 4096, &out);
		OK(r.is_done);
		EQ(r.faults, over == 1 ? SMTP_DATA_LINE_TOO_LONG : 0);
		if (over < 1)
			EQ(buf_len(&out), SMTP_TEXT_LINE_MAX + over + 2);
	}
	buf_free(&in);
	buf_free(&out);
}

static void chunk(str in, const char *text, unsigned faults)
{
	struct buf out;

	buf_init(&out, OUT_MAX);
	for (size_t at = 0; at <= in.n; at++) {
		struct smtp_data d;
		bool good;

		buf_clear(&out);
		smtp_data_init(&d, false);
		good = smtp_data_decode(&d, str_head(in, at), &out) == at;
		good &= smtp_data_decode(&d, str_from(in, at), &out) == in.n - at;
		smtp_data_end(&d, &out);
		good &= d.faults == faults && (faults || str_eq(buf_str(&out), str_from_c(text)));
		OK(good);
	}
	buf_free(&out);
}

static void test_chunks(void)
{
	tap_group("BDAT");
	chunk(S("a\r\n.\r\nb\r\n"), "a\r\n.\r\nb\r\n", 0);
	chunk(S("..a"), "..a\r\n", 0);
	chunk(S(""), "", 0);
	chunk(S("a\nb"), "", SMTP_DATA_BARE_LF);
	chunk(S("a\r"), "", SMTP_DATA_BARE_CR);
	chunk(S("a\0b"), "", SMTP_DATA_NUL);
}

static void test_replies(void)
{
	struct smtp_data d = { .faults = 0 };
	uint16_t code = 0;
	const char *status = NULL;

	tap_group("replies");
	OK(!smtp_data_fault_text(&d, &code, &status));
	d.faults = SMTP_DATA_BARE_LF | SMTP_DATA_NUL;
	OK(smtp_data_fault_text(&d, &code, &status));
	EQ(code, 550);
	STR_EQ(str_from_c(status), S("5.5.2"));
}

int main(void)
{
	test_rows();
	test_long_lines();
	test_chunks();
	test_replies();
	return tap_done();
}

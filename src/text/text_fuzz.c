/* Everything in this folder on any bytes, with what must hold: decoders give the same in pieces as
 * at once, what encodes decodes to the same, what is said to be UTF-8 is. */
#include "text/base64.h"
#include "text/charset.h"
#include "text/date.h"
#include "text/fold.h"
#include "text/mutf7.h"
#include "text/nfc.h"
#include "text/qp.h"
#include "text/rfc2047.h"
#include "text/rfc2231.h"
#include "text/utf8.h"

enum { MAX = 1 << 22 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds, const char *what)
{
	if (!holds)
		panic("text_fuzz: %s", what);
}

static void pieces(str s, size_t piece)
{
	struct base64_decoder b1 = { 0 }, b2 = { 0 };
	struct qp_decoder q1 = { 0 }, q2 = { 0 };
	struct buf one, two;

	buf_init(&one, MAX);
	buf_init(&two, MAX);
	base64_decode_piece(&b1, s, &one);
	base64_decode_end(&b1, &one);
	for (size_t i = 0; i < s.n; i += piece)
		base64_decode_piece(&b2, str_sub(s, i, piece), &two);
	base64_decode_end(&b2, &two);
	check(str_eq(buf_str(&one), buf_str(&two)), "base64 pieces");
	buf_clear(&one);
	buf_clear(&two);
	qp_decode_piece(&q1, s, &one);
	qp_decode_end(&q1, &one);
	for (size_t i = 0; i < s.n; i += piece)
		qp_decode_piece(&q2, str_sub(s, i, piece), &two);
	qp_decode_end(&q2, &two);
	check(str_eq(buf_str(&one), buf_str(&two)), "quoted-printable pieces");
	buf_free(&one);
	buf_free(&two);
}

static void charset(str name, str s, size_t piece)
{
	struct charset *c = charset_new(name);
	struct buf one, two;

	buf_init(&one, MAX);
	buf_init(&two, MAX);
	check(charset_to_utf8(name, s, &one) == ERR_OK, "charset");
	for (size_t i = 0; c && i < s.n; i += piece)
		charset_feed(c, str_sub(s, i, piece), &two);
	if (c)
		charset_end(c, &two);
	charset_free(c);
	check(utf8_is_valid(buf_str(&one)), "charset writes UTF-8");
	/* Bad bytes at a cut may count differently in stateful charsets; UTF-8 is ours and exact.
	 */
	if (str_eq(name, S("utf-8")))
		check(str_eq(buf_str(&one), buf_str(&two)), "charset pieces");
	buf_free(&one);
	buf_free(&two);
}

static void round_trips(str s)
{
	struct qp_decoder q = { 0 };
	struct buf one, two;

	buf_init(&one, MAX);
	buf_init(&two, MAX);
	base64_encode(s, 0, &one);
	check(base64_decode(buf_str(&one), &two) == ERR_OK && str_eq(buf_str(&two), s),
	      "base64 round trip");
	buf_clear(&one);
	buf_clear(&two);
	if (mutf7_decode(s, &one) == ERR_OK) {
		check(utf8_is_valid(buf_str(&one)), "mutf7 writes UTF-8");
		check(mutf7_encode(buf_str(&one), &two) == ERR_OK && str_eq(buf_str(&two), s),
		      "mutf7 has one form");
	}
	buf_clear(&one);
	buf_clear(&two);
	if (mutf7_encode(s, &one) == ERR_OK)
		check(mutf7_decode(buf_str(&one), &two) == ERR_OK && str_eq(buf_str(&two), s),
		      "mutf7 round trip");
	buf_clear(&one);
	buf_clear(&two);
	if (s.n && !memchr(s.p, '\n', s.n)) {
		qp_encode(s, &one);
		qp_decode_piece(&q, buf_str(&one), &two);
		qp_decode_end(&q, &two);
		check(str_eq(buf_str(&two), s), "quoted-printable round trip");
	}
	buf_clear(&one);
	buf_clear(&two);
	if (nfc_normalise(s, &one) == ERR_OK)
		check(nfc_normalise(buf_str(&one), &two) == ERR_OK &&
			      str_eq(buf_str(&one), buf_str(&two)),
		      "nfc twice");
	buf_free(&one);
	buf_free(&two);
}

static void header_text(str s)
{
	struct buf out, again;
	struct date d, e;

	buf_init(&out, MAX);
	buf_init(&again, MAX);
	rfc2047_decode(s, &out);
	check(utf8_is_valid(buf_str(&out)), "rfc2047 writes UTF-8");
	buf_clear(&out);
	rfc2231_decode(s, &out);
	check(utf8_is_valid(buf_str(&out)), "rfc2231 writes UTF-8");
	buf_clear(&out);
	fold_casemap(s, &out);
	buf_clear(&out);
	rfc2047_encode(s, 10, &out);
	for (str rest = buf_str(&out), line; rest.n;) {
		line = str_cut_line(&rest);
		check(!memchr(line.n ? line.p : "", '\r', line.n), "rfc2047 writes no bare CR");
		check(!rest.n || rest.p[0] == ' ', "rfc2047 folds");
	}
	buf_clear(&out);
	if (date_parse_rfc5322(s, &d) == ERR_OK || date_parse_imap(s, &d) == ERR_OK) {
		date_format_rfc5322(d, &out);
		check(date_parse_rfc5322(buf_str(&out), &e) == ERR_OK && d.seconds == e.seconds &&
			      d.zone == e.zone,
		      "date round trip");
		buf_clear(&out);
		date_format_imap(d, &out);
		check(date_parse_imap(buf_str(&out), &e) == ERR_OK && d.seconds == e.seconds,
		      "IMAP date round trip");
	}
	buf_free(&out);
	buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "utf-8", "iso-8859-1", "iso-2022-jp",
					     "utf-7", "gb18030",    "utf-16" };
	str s;
	size_t piece;

	if (size < 2)
		return 0;
	piece = 1u + data[0] % 16;
	s = str_of(data + 2, size - 2);
	pieces(s, piece);
	charset(str_from_c(names[data[1] % ARRAY_LEN(names)]), s, piece);
	round_trips(s);
	header_text(s);
	return 0;
}

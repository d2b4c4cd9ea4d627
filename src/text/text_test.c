/* Encodings, charsets, folding: small cases with their RFCs' examples. */
#include "base/tap.h"
#include "text/base64.h"
#include "text/charset.h"
#include "text/fold.h"
#include "text/mutf7.h"
#include "text/nfc.h"
#include "text/qp.h"
#include "text/utf8.h"

static struct buf out;

static str clear(void)
{
	buf_clear(&out);
	return buf_str(&out);
}

static void test_utf8(void)
{
	uint32_t code = 0;
	char bytes[UTF8_MAX];

	tap_group("utf8");
	OK(utf8_is_valid(S("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80")));
	OK(!utf8_is_valid(S("\xC0\x80")));	   /* overlong */
	OK(!utf8_is_valid(S("\xE0\x9F\xBF")));	   /* overlong */
	OK(!utf8_is_valid(S("\xED\xA0\x80")));	   /* surrogate */
	OK(!utf8_is_valid(S("\xF4\x90\x80\x80"))); /* above U+10FFFF */
	OK(!utf8_is_valid(S("abc\xE2\x82")));	   /* cut */
	EQ(utf8_valid_prefix(S("abcdefghijk\xE2\x82")), 11);
	EQ(utf8_decode(S("\xF4\x8F\xBF\xBF"), &code), 4);
	EQ(code, 0x10FFFF);
	EQ(utf8_encode(0xD800, bytes), 0);
	EQ(utf8_encode(0x110000, bytes), 0);
	for (uint32_t c = 0; c < 0x110000; c += 37) {
		size_t n = utf8_encode(c, bytes);

		if (n && (utf8_decode(str_of(bytes, n), &code) != n || code != c)) {
			OK(!"round trip");
			return;
		}
	}
	OK(utf8_is_ascii(S("plain \x7f")));
	OK(!utf8_is_ascii(S("0123456789abcdef\x80")));
}

static enum err strict(str s)
{
	clear();
	return base64_decode(s, &out);
}

static void test_base64(void)
{
	struct base64_decoder d = { 0 };

	tap_group("base64");
	/* RFC 4648 10 */
	EQ(strict(S("Zm9vYmFy")), ERR_OK);
	STR_EQ(buf_str(&out), S("foobar"));
	EQ(strict(S("Zm9vYg==")), ERR_OK);
	STR_EQ(buf_str(&out), S("foob"));
	EQ(strict(S("")), ERR_OK);
	EQ(strict(S("Zm9vYg=")), ERR_SYNTAX);
	EQ(strict(S("Zm9vYh==")), ERR_SYNTAX); /* spare bits */
	EQ(strict(S("Zg==Zg==")), ERR_SYNTAX);
	EQ(strict(S("Zm9v\r\n")), ERR_SYNTAX);
	EQ(strict(S("====")), ERR_SYNTAX);
	EQ(strict(S("Z===")), ERR_SYNTAX);
	clear();
	base64_decode_piece(&d, S("Zm\r\n9"), &out);
	base64_decode_piece(&d, S("v!Yg==Zm9v Yg"), &out);
	base64_decode_end(&d, &out);
	STR_EQ(buf_str(&out), S("foobfoob"));
	clear();
	base64_encode(S("foob"), 0, &out);
	STR_EQ(buf_str(&out), S("Zm9vYg=="));
	clear();
	base64_encode(S("foobarfoobar"), 8, &out);
	STR_EQ(buf_str(&out), S("Zm9vYmFy\r\nZm9vYmFy\r\n"));
}

/* Decodes in pieces of every size: the result must not depend on them. */
static str qp(str s, size_t piece)
{
	struct qp_decoder d = { 0 };

	clear();
	for (size_t i = 0; i < s.n; i += piece)
		qp_decode_piece(&d, str_sub(s, i, piece), &out);
	qp_decode_end(&d, &out);
	return buf_str(&out);
}

static void test_qp(void)
{
	str s = S("a=3Db =\r\nc \t\r\nd=\n=e9=E9 =4 =\r\n");

	tap_group("quoted-printable");
	for (size_t piece = 1; piece < s.n + 1; piece++)
		STR_EQ(qp(s, piece), S("a=b c\r\nd\xe9\xe9 =4 "));
	STR_EQ(qp(S("x=zy=\r"), 1), S("x=zy"));
	STR_EQ(qp(S("soft=  \r\nbreak"), 3), S("softbreak"));
	clear();
	qp_encode(S("a=b \r\n.\nx\xe9"), &out);
	STR_EQ(buf_str(&out), S("a=3Db=20\r\n=2E\r\nx=E9"));
	clear();
	qp_encode(S("1234567890123456789012345678901234567890123456789012345678901234567890123456"),
		  &out);
	EQ(buf_len(&out), 76);
	clear();
	qp_encode(
		S("12345678901234567890123456789012345678901234567890123456789012345678901234567"),
		&out);
	EQ(buf_len(&out), 77 + 3);
}

static void test_charset(void)
{
	struct charset *c;
	struct charset_preload *p;

	tap_group("charset");
	OK(charset_is_known(S("UTF-8")));
	OK(charset_is_known(S("iso-8859-15")));
	OK(!charset_is_known(S("x-no-such")));
	OK(!charset_is_known(S("")));
	OK(!charset_is_known(S("utf-16//TRANSLIT")));
	OK(!charset_is_known(S("a\0b")));
	clear();
	EQ(charset_to_utf8(S("iso-8859-1"), S("\xe9\x80"), &out), ERR_OK);
	STR_EQ(buf_str(&out), S("\xC3\xA9\xE2\x82\xAC"));
	clear();
	EQ(charset_to_utf8(S("utf-8"), S("a\xff\xC3\xA9\xC3"), &out), ERR_OK);
	STR_EQ(buf_str(&out), S("a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD"));
	clear();
	EQ(charset_to_utf8(S("iso-2022-jp"), S("\x1b$BF|K\\8l\x1b(B"), &out), ERR_OK);
	STR_EQ(buf_str(&out), S("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E"));
	EQ(charset_to_utf8(S("x-no-such"), S("a"), &out), ERR_UNSUPPORTED);
	/* A code above U+10FFFF is no character. */
	clear();
	EQ(charset_to_utf8(S("ucs-4"), S("\0\x20\0\0\0\0\0a"), &out), ERR_OK);
	OK(utf8_is_valid(buf_str(&out)));
	OK(str_ends(buf_str(&out), S("a")));
	clear();
	c = charset_new(S("utf-16le"));
	for (size_t i = 0; i < 6; i++)
		charset_feed(c, str_of(&"\xac\x20\x3d\xd8\x00\xde"[i], 1), &out);
	charset_end(c, &out);
	charset_free(c);
	STR_EQ(buf_str(&out), S("\xE2\x82\xAC\xF0\x9F\x98\x80"));
	p = charset_preload();
	OK(p != NULL);
	charset_preload_free(p);
}

static bool same_fold(str a, str b)
{
	struct buf other;
	bool same;

	buf_init(&other, 1000);
	clear();
	fold_casemap(a, &out);
	fold_casemap(b, &other);
	same = str_eq(buf_str(&out), buf_str(&other));
	buf_free(&other);
	return same;
}

/* Every ASCII character at every place of a word, and behind each a character that is not ASCII. */
static void test_fold_ascii(void)
{
	char in[17], want[17];
	unsigned wrong = 0;

	for (unsigned c = 0; c < 128; c++) {
		for (size_t n = 0; n < sizeof(in) - 2; n++) {
			memset(in, 'z', n);
			memset(want, 'Z', n);
			in[n] = (char)c;
			want[n] = ascii_upper((char)c);
			memcpy(in + n + 1, "\xff", 1);
			memcpy(want + n + 1, "\xff", 1);
			clear();
			fold_casemap(str_of(in, n + 2), &out);
			wrong += !str_eq(buf_str(&out), str_of(want, n + 2));
		}
	}
	EQ(wrong, 0);
}

static void test_fold(void)
{
	tap_group("fold");
	test_fold_ascii();
	OK(same_fold(S("Stra\xC3\x9F"
		       "e"),
		     S("sTRA\xC3\x9F"
		       "E")));
	OK(same_fold(S("\xC3\xA9"), S("E\xCC\x81"))); /* e acute, and E with a combining acute */
	OK(same_fold(S("\xEF\xBC\xA1"), S("a")));     /* fullwidth A */
	OK(same_fold(S("\xD0\xB6"), S("\xD0\x96")));  /* Cyrillic zhe */
	OK(!same_fold(S("a"), S("b")));
	OK(same_fold(S("a\xff"), S("A\xff")));
	clear();
	EQ(fold_casemap_piece(S("ab\xC3"), &out), 2);
	STR_EQ(buf_str(&out), S("AB"));
}

static enum err decode7(str s)
{
	clear();
	return mutf7_decode(s, &out);
}

static void test_mutf7(void)
{
	tap_group("modified UTF-7");
	/* RFC 3501 5.1.3 */
	EQ(decode7(S("~peter/mail/&U,BTFw-/&ZeVnLIqe-")), ERR_OK);
	STR_EQ(buf_str(&out),
	       S("~peter/mail/\xE5\x8F\xB0\xE5\x8C\x97/\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E"));
	clear();
	EQ(mutf7_encode(
		   S("~peter/mail/\xE5\x8F\xB0\xE5\x8C\x97/\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E"),
		   &out),
	   ERR_OK);
	STR_EQ(buf_str(&out), S("~peter/mail/&U,BTFw-/&ZeVnLIqe-"));
	EQ(decode7(S("&Jjo!")), ERR_SYNTAX);		  /* no end */
	EQ(decode7(S("&U,BTFw-&ZeVnLIqe-")), ERR_SYNTAX); /* superfluous shift */
	EQ(decode7(S("&AGE-")), ERR_SYNTAX);		  /* an 'a' needs no shift */
	EQ(decode7(S("&2D0-")), ERR_SYNTAX);		  /* half a pair */
	EQ(decode7(S("&3gDYPQ-")), ERR_SYNTAX);		  /* the halves in the wrong order */
	EQ(decode7(S("&IKx-")), ERR_SYNTAX);		  /* spare bits */
	EQ(decode7(S("&IKwA-")), ERR_SYNTAX);		  /* a digit too many */
	EQ(decode7(S("caf\xC3\xA9")), ERR_SYNTAX);
	EQ(decode7(S("a&-b&-")), ERR_OK);
	STR_EQ(buf_str(&out), S("a&b&"));
	EQ(decode7(S("&2D3eAA-")), ERR_OK);
	STR_EQ(buf_str(&out), S("\xF0\x9F\x98\x80"));
	clear();
	EQ(mutf7_encode(S("\xff"), &out), ERR_SYNTAX);
}

static void test_nfc(void)
{
	tap_group("nfc");
	clear();
	EQ(nfc_normalise(S("Cafe\xCC\x81"), &out), ERR_OK);
	STR_EQ(buf_str(&out), S("Caf\xC3\xA9"));
	EQ(nfc_normalise(S("\xff"), &out), ERR_SYNTAX);
}

int main(void)
{
	buf_init(&out, 10000);
	test_utf8();
	test_base64();
	test_qp();
	test_charset();
	test_fold();
	test_mutf7();
	test_nfc();
	buf_free(&out);
	return tap_done();
}

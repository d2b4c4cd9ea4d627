/* Charsets to UTF-8.
 *
 * iconv does the work, but for ASCII and UTF-8, which are most of the mail and where only the
 * repair of bad bytes is left to do. A stream keeps the bytes of an unfinished character between
 * two pieces. iconv is never asked for names that hold '/': that is where its options
 * ("//TRANSLIT") begin, and the name comes from a message.
 *
 * Names that mail uses wrongly are mapped first: "iso-8859-1" of the web and of Outlook means
 * windows-1252 (its 0x80-0x9F are punctuation, not controls), as every mail reader takes it. */
#include "text/charset.h"

#include "text/utf8.h"

#include <errno.h>
#include <iconv.h>
#include <stdlib.h>

enum {
	CHARACTER_MAX = 16, /* bytes of one unfinished character, shift sequences included */
	CHUNK = 1024,	    /* converted at once; on a fiber's stack */
};

struct charset {
	iconv_t cd; /* unused for UTF-8 */
	bool is_utf8;
	char rest[CHARACTER_MAX];
	size_t rest_count;
};

static const struct {
	const char *name, *means;
} aliases[] = {
	{ "iso-8859-1", "windows-1252" },
	{ "latin1", "windows-1252" },
	{ "ansi_x3.110-1983", "windows-1252" },
	{ "x-unknown", "utf-8" },
	{ "unknown-8bit", "utf-8" },
	{ "utf8", "utf-8" },
	{ "default", "utf-8" },
	{ "us-ascii", "utf-8" },
	{ "ascii", "utf-8" },
	{ "ks_c_5601-1987", "cp949" },
	{ "ks_c_5601-1989", "cp949" },
	{ "euc-kr", "cp949" },
	{ "gb2312", "gb18030" },
	{ "gbk", "gb18030" },
	{ "x-gbk", "gb18030" },
	{ "shift_jis", "cp932" },
	{ "x-sjis", "cp932" },
	{ "iso-8859-8-i", "iso-8859-8" },
	{ "iso-8859-9", "windows-1254" },
	{ "iso-8859-11", "tis-620" },
	{ "x-mac-roman", "macintosh" },
	{ "unicode-1-1-utf-7", "utf-7" },
};

/* The name that iconv gets; false for what cannot be one. */
static bool canonical_name(str name, char out[CHARSET_NAME_MAX + 1])
{
	if (name.n == 0 || name.n > CHARSET_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (!ascii_is_alnum(name.p[i]) && !memchr("._:+-", name.p[i], 5))
			return false;
	for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
		if (str_case_eq(name, str_from_c(aliases[i].name)))
			name = str_from_c(aliases[i].means);
	memcpy(out, name.p, name.n);
	out[name.n] = 0;
	return true;
}

struct charset *charset_new(str name)
{
	char canonical[CHARSET_NAME_MAX + 1];
	struct charset *c;

	if (!canonical_name(name, canonical) || !(c = calloc(1, sizeof(*c))))
		return NULL;
	c->is_utf8 = str_case_eq(str_from_c(canonical), S("utf-8"));
	if (!c->is_utf8 && (c->cd = iconv_open("UTF-8", canonical)) == (iconv_t)-1) {
		free(c);
		return NULL;
	}
	return c;
}

void charset_free(struct charset *c)
{
	if (c && !c->is_utf8)
		iconv_close(c->cd);
	free(c);
}

bool charset_is_known(str name)
{
	struct charset *c = charset_new(name);

	charset_free(c);
	return c != NULL;
}

static void add_replacement(struct buf *out)
{
	buf_add(out, S("\xEF\xBF\xBD"));
}

/* Copies the valid parts of s. Returns how many bytes at its end may be the beginning of a
 * character. */
static size_t utf8_repair(str s, struct buf *out)
{
	while (s.n) {
		size_t good = utf8_valid_prefix(s);
		unsigned char lead;

		buf_add(out, str_head(s, good));
		s = str_from(s, good);
		if (s.n == 0)
			break;
		lead = (unsigned char)s.p[0];
		if (lead >= 0xC2 && lead <= 0xF4 &&
		    s.n < (lead < 0xE0	 ? 2u
			   : lead < 0xF0 ? 3u
					 : 4u)) {
			size_t tail = 1;

			while (tail < s.n && (s.p[tail] & 0xC0) == 0x80)
				tail++;
			if (tail == s.n)
				return s.n;
		}
		add_replacement(out);
		s = str_from(s, 1);
	}
	return 0;
}

/* Converts s; returns how many bytes at its end are an unfinished character. */
static size_t convert(struct charset *c, str s, struct buf *out)
{
	/* iconv's interface wants a pointer to char; it does not write through it. */
	char *in = (char *)(uintptr_t)s.p;
	size_t left = s.n;

	while (left && !buf_failed(out)) {
		char chunk[CHUNK], *to = chunk;
		size_t room = sizeof(chunk), r = iconv(c->cd, &in, &left, &to, &room);

		/* From UCS-4 glibc writes what is no UTF-8: codes above U+10FFFF. */
		(void)utf8_repair(str_of(chunk, sizeof(chunk) - room), out);
		if (r != (size_t)-1 || errno == E2BIG)
			continue;
		if (errno == EINVAL && left < CHARACTER_MAX)
			return left;
		add_replacement(out);
		in++;
		left--;
	}
	return 0;
}

static size_t convert_any(struct charset *c, str s, struct buf *out)
{
	return c->is_utf8 ? utf8_repair(s, out) : convert(c, s, out);
}

void charset_feed(struct charset *c, str piece, struct buf *out)
{
	/* The unfinished character is completed byte by byte, then the rest of the piece goes at
	 * once. */
	while (c->rest_count && piece.n) {
		char joined[CHARACTER_MAX];
		size_t n = c->rest_count;

		memcpy(joined, c->rest, n);
		joined[n++] = piece.p[0];
		piece = str_from(piece, 1);
		c->rest_count = convert_any(c, str_of(joined, n), out);
		if (c->rest_count == CHARACTER_MAX) {
			c->rest_count = 0;
			add_replacement(out);
		}
		memcpy(c->rest, joined + n - MIN(n, c->rest_count), c->rest_count);
	}
	if (piece.n == 0)
		return;
	c->rest_count = convert_any(c, piece, out);
	memcpy(c->rest, piece.p + piece.n - c->rest_count, c->rest_count);
}

void charset_end(struct charset *c, struct buf *out)
{
	if (c->rest_count)
		add_replacement(out);
	c->rest_count = 0;
	if (!c->is_utf8)
		iconv(c->cd, NULL, NULL, NULL, NULL);
}

enum err charset_to_utf8(str name, str bytes, struct buf *out)
{
	struct charset *c = charset_new(name);

	if (!c)
		return ERR_UNSUPPORTED;
	charset_feed(c, bytes, out);
	charset_end(c, out);
	charset_free(c);
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}

static const char *const preloaded[] = {
	"iso-8859-1",	"iso-8859-2",	"iso-8859-3",	"iso-8859-4",	"iso-8859-5",
	"iso-8859-6",	"iso-8859-7",	"iso-8859-8",	"iso-8859-9",	"iso-8859-10",
	"iso-8859-13",	"iso-8859-14",	"iso-8859-15",	"iso-8859-16",	"tis-620",
	"windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254",
	"windows-1255", "windows-1256", "windows-1257", "windows-1258", "koi8-r",
	"koi8-u",	"macintosh",	"cp437",	"cp850",	"cp866",
	"cp932",	"euc-jp",	"iso-2022-jp",	"cp949",	"iso-2022-kr",
	"gb18030",	"hz-gb-2312",	"iso-2022-cn",	"big5",		"big5-hkscs",
	"utf-7",	"utf-16",	"utf-16le",	"utf-16be",	"utf-32",
};

struct charset_preload {
	struct charset *open[ARRAY_LEN(preloaded)];
};

struct charset_preload *charset_preload(void)
{
	struct charset_preload *p = calloc(1, sizeof(*p));

	for (size_t i = 0; p && i < ARRAY_LEN(preloaded); i++)
		p->open[i] = charset_new(str_from_c(preloaded[i]));
	return p;
}

void charset_preload_free(struct charset_preload *p)
{
	for (size_t i = 0; p && i < ARRAY_LEN(preloaded); i++)
		charset_free(p->open[i]);
	free(p);
}

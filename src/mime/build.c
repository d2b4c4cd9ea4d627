/* Building messages (RFC 5322 3.6, RFC 2045, RFC 2047).
 *
 * The invariant: whatever the values hold, a field ends where this code ends it. So values are
 * cleaned of CR, LF and NUL before anything else looks at them. */
#include "mime/build.h"

#include "text/rfc2047.h"
#include "text/utf8.h"

static void add_clean(struct buf *to, str value)
{
	for (size_t i = 0; i < value.n; i++) {
		char c = value.p[i];

		buf_add_char(to, c == '\r' || c == '\n' || c == 0 ? ' ' : c);
	}
}

static void add_name(struct buf *out, str name)
{
	buf_add(out, name);
	buf_add(out, S(": "));
}

void build_field(struct buf *out, str name, str value)
{
	struct buf clean;

	buf_init(&clean, value.n + 1);
	add_clean(&clean, value);
	add_name(out, name);
	rfc2047_encode(str_trim(buf_str(&clean)), name.n + 2, out);
	buf_add(out, S("\r\n"));
	if (buf_failed(&clean))
		out->failed = true;
	buf_free(&clean);
}

/* Folds in front of words that would pass the line's end. */
static void add_folded(struct buf *out, str text, size_t column)
{
	while (text.n) {
		size_t end = 1;

		while (end < text.n && text.p[end] != ' ')
			end++;
		/* RFC 5322 2.2.3: before white space, and never so that a line is white space
		 * alone. */
		if (column + end > BUILD_LINE && text.p[0] == ' ' && end > 1) {
			buf_add(out, S("\r\n"));
			column = 0;
		}
		buf_add(out, str_head(text, end));
		column += end;
		text = str_from(text, end);
	}
}

void build_structured(struct buf *out, str name, str value)
{
	struct buf clean;

	buf_init(&clean, value.n + 1);
	add_clean(&clean, value);
	add_name(out, name);
	add_folded(out, str_trim(buf_str(&clean)), name.n + 2);
	buf_add(out, S("\r\n"));
	if (buf_failed(&clean))
		out->failed = true;
	buf_free(&clean);
}

/* RFC 5322 3.2.4 and 3.2.5: a phrase, quoted unless it is made of atoms. */
static void add_phrase(struct buf *out, str name)
{
	bool atoms = true;

	for (size_t i = 0; i < name.n; i++)
		atoms = atoms &&
			(ascii_is_alnum(name.p[i]) || name.p[i] == ' ' || name.p[i] == '-');
	if (atoms) {
		buf_add(out, name);
		return;
	}
	buf_add_char(out, '"');
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '"' || name.p[i] == '\\')
			buf_add_char(out, '\\');
		buf_add_char(out, name.p[i]);
	}
	buf_add_char(out, '"');
}

void build_address(struct buf *out, str field, str name, struct addr_spec address)
{
	struct buf clean;
	str phrase;

	buf_init(&clean, name.n + 1);
	add_clean(&clean, name);
	phrase = str_trim(buf_str(&clean));
	add_name(out, field);
	if (phrase.n) {
		if (utf8_is_ascii(phrase))
			add_phrase(out, phrase);
		else
			rfc2047_encode(phrase, field.n + 2, out);
		/* A long name and an address do not share a line. */
		buf_add(out,
			field.n + phrase.n + address.local.n + address.domain.n + 6 > BUILD_LINE
				? S("\r\n <")
				: S(" <"));
	} else {
		buf_add_char(out, '<');
	}
	addr_write(address, out);
	buf_add(out, S(">\r\n"));
	if (buf_failed(&clean))
		out->failed = true;
	buf_free(&clean);
}

void build_date(struct buf *out, struct date when)
{
	buf_add(out, S("Date: "));
	date_format_rfc5322(when, out);
	buf_add(out, S("\r\n"));
}

static void hex(char *to, const unsigned char random[BUILD_RANDOM])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < BUILD_RANDOM; i++) {
		to[2 * i] = digits[random[i] >> 4];
		to[2 * i + 1] = digits[random[i] & 15];
	}
}

void build_message_id(struct buf *out, struct date when, const unsigned char random[BUILD_RANDOM],
		      str host)
{
	char text[2 * BUILD_RANDOM];

	hex(text, random);
	buf_printf(out, "Message-ID: <%lld.", (long long)when.seconds);
	buf_add(out, str_of(text, sizeof(text)));
	buf_add_char(out, '@');
	add_clean(out, host);
	buf_add(out, S(">\r\n"));
}

str build_boundary(char to[BUILD_BOUNDARY_MAX], const unsigned char random[BUILD_RANDOM])
{
	/* RFC 2045 6.7: "=_" is in no quoted-printable or base64 text. */
	static const char mark[] = "=_posthorn_";
	size_t n = sizeof(mark) - 1;

	memcpy(to, mark, n);
	hex(to + n, random);
	return str_of(to, n + 2 * BUILD_RANDOM);
}

void build_multipart(struct buf *out, str subtype, str params, str boundary)
{
	buf_add(out, S("MIME-Version: 1.0\r\nContent-Type: multipart/"));
	buf_add(out, subtype);
	add_clean(out, params);
	buf_add(out, S(";\r\n boundary=\""));
	buf_add(out, boundary);
	buf_add(out, S("\"\r\n\r\n"));
}

void build_part(struct buf *out, str boundary, str type, str encoding)
{
	buf_add(out, S("\r\n--"));
	buf_add(out, boundary);
	buf_add(out, S("\r\n"));
	build_structured(out, S("Content-Type"), type);
	if (encoding.n)
		build_structured(out, S("Content-Transfer-Encoding"), encoding);
	buf_add(out, S("\r\n"));
}

void build_end(struct buf *out, str boundary)
{
	buf_add(out, S("\r\n--"));
	buf_add(out, boundary);
	buf_add(out, S("--\r\n"));
}

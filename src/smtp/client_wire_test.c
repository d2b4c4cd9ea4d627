/* Message data: dots, line ends, long lines, all cut into pieces at every place; the conversion to
 * 7 bits. */
#include "base/tap.h"
#include "smtp/client_wire.h"

/* The wire form of `in`, in pieces of `step` bytes. */
static str encode(str in, size_t step, bool to_7bit, struct buf *out)
{
	struct smtp_wire d;

	buf_clear(out);
	if (smtp_wire_begin(&d, to_7bit))
		OK(!"no memory");
	for (; in.n; in = str_from(in, step))
		smtp_wire_add(&d, str_head(in, step), out);
	smtp_wire_end(&d, out);
	smtp_wire_free(&d);
	return buf_str(out);
}

static void test_lines(void)
{
	static const struct {
		str in, out;
	} cases[] = {
		{ { "", 0 }, { ".\r\n", 3 } },
		{ { "a\r\n", 3 }, { "a\r\n.\r\n", 6 } },
		{ { "a", 1 }, { "a\r\n.\r\n", 6 } },
		{ { ".\r\n", 3 }, { "..\r\n.\r\n", 7 } },
		{ { "..a\r\nb.\r\n", 9 }, { "...a\r\nb.\r\n.\r\n", 13 } },
		{ { "a\n.\nb", 5 }, { "a\r\n..\r\nb\r\n.\r\n", 13 } },
		{ { "a\r.\rb\r\n", 7 }, { "a . b\r\n.\r\n", 10 } },
		{ { "a\r\r\n", 4 }, { "a \r\n.\r\n", 7 } },
		{ { "a\r", 2 }, { "a \r\n.\r\n", 7 } },
		{ { "\r\n\n", 3 }, { "\r\n\r\n.\r\n", 7 } },
		{ { "\n.\r\n", 4 }, { "\r\n..\r\n.\r\n", 9 } },
	};
	struct buf out;

	tap_group("lines");
	buf_init(&out, 1024 * 1024);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t step = 1; step <= 4; step++)
			STR_EQ(encode(cases[i].in, step, false, &out), cases[i].out);
	buf_free(&out);
}

static void test_long(void)
{
	char in[3 * SMTP_WIRE_LINE_MAX];
	struct buf out;

	tap_group("long lines");
	buf_init(&out, 1024 * 1024);
	memset(in, 'a', sizeof(in));
	for (size_t n = SMTP_WIRE_LINE_MAX - 1; n <= SMTP_WIRE_LINE_MAX + 1; n++) {
		size_t fold = n > SMTP_WIRE_LINE_MAX ? 3 : 0;

		in[n] = '\r';
		in[n + 1] = '\n';
		EQ(encode(str_of(in, n + 2), n + 2, false, &out).n, n + 2 + fold + 3);
		EQ(encode(str_of(in, n + 2), 7, false, &out).n, n + 2 + fold + 3);
		in[n] = in[n + 1] = 'a';
	}
	for (str rest = encode(str_of(in, sizeof(in)), 100, false, &out); rest.n;)
		OK(str_cut_line(&rest).n <= SMTP_WIRE_LINE_MAX);
	buf_free(&out);
}

static const char mixed[] = "Subject: x\r\n"
			    "MIME-Version: 1.0\r\n"
			    "Content-Type: multipart/mixed; boundary=\"b1\"\r\n"
			    "Content-Transfer-Encoding: 8bit\r\n"
			    "\r\n"
			    "pre\r\n"
			    "--b1\r\n"
			    "Content-Type: text/plain; charset=utf-8\r\n"
			    "content-transfer-encoding:\r\n"
			    "\t8bit\r\n"
			    "\r\n"
			    "gr\xc3\xbc\xc3\x9f = e \r\n"
			    ".dot\r\n"
			    "--b1\r\n"
			    "Content-Type: text/plain\r\n"
			    "\r\n"
			    "7 = bit \r\n"
			    "--b1\r\n"
			    "Content-Type: message/rfc822\r\n"
			    "Content-Transfer-Encoding: 8bit\r\n"
			    "\r\n"
			    "Content-Type: text/plain\r\n"
			    "Content-Transfer-Encoding: 8bit\r\n"
			    "\r\n"
			    "\xc3\xa4\r\n"
			    "--b1--\r\n"
			    "after = \r\n";

static const char mixed_wire[] = "Subject: x\r\n"
				 "MIME-Version: 1.0\r\n"
				 "Content-Type: multipart/mixed; boundary=\"b1\"\r\n"
				 "Content-Transfer-Encoding: 7bit\r\n"
				 "\r\n"
				 "pre\r\n"
				 "--b1\r\n"
				 "Content-Type: text/plain; charset=utf-8\r\n"
				 "Content-Transfer-Encoding: quoted-printable\r\n"
				 "\r\n"
				 "gr=C3=BC=C3=9F =3D e=20\r\n"
				 "..dot\r\n"
				 "--b1\r\n"
				 "Content-Type: text/plain\r\n"
				 "\r\n"
				 "7 = bit \r\n"
				 "--b1\r\n"
				 "Content-Type: message/rfc822\r\n"
				 "Content-Transfer-Encoding: 7bit\r\n"
				 "\r\n"
				 "Content-Type: text/plain\r\n"
				 "Content-Transfer-Encoding: quoted-printable\r\n"
				 "\r\n"
				 "=C3=A4\r\n"
				 "--b1--\r\n"
				 "after = \r\n"
				 ".\r\n";

static void test_7bit(void)
{
	struct buf out;
	str wire;

	tap_group("to 7 bits");
	buf_init(&out, 1024 * 1024);
	for (size_t step = 1; step < sizeof(mixed); step += 11)
		STR_EQ(encode(str_from_c(mixed), step, true, &out), str_from_c(mixed_wire));
	wire = encode(str_from_c(mixed), 100, false, &out);
	OK(str_find(wire, S("gr\xc3\xbc\xc3\x9f = e \r\n..dot\r\n")) != STR_NONE);
	/* What says nothing of 8 bits is left alone to the byte. */
	STR_EQ(encode(S("A: b\r\n\r\n\xe4\r\n"), 3, true, &out), S("A: b\r\n\r\n\xe4\r\n.\r\n"));
	/* Cut off in the header. */
	STR_EQ(encode(S("A: b\r\nContent-Transfer-Encoding: 8bit"), 3, true, &out),
	       S("A: b\r\nContent-Transfer-Encoding: 8bit\r\n.\r\n"));
	buf_free(&out);
}

static void test_7bit_long(void)
{
	static const char head[] = "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
	char in[4000];
	struct buf out;

	tap_group("to 7 bits, one long line");
	buf_init(&out, 1024 * 1024);
	memset(in, '.', sizeof(in));
	memcpy(in, head, sizeof(head) - 1);
	in[3000] = '\xe4';
	for (str rest = encode(str_of(in, sizeof(in)), 100, true, &out); rest.n;) {
		str line = str_cut_line(&rest);

		if (line.n > 77 || (rest.n && str_eq(line, S("."))))
			OK(!"a line is too long, or a dot alone");
	}
	OK(str_find(buf_str(&out), S("=E4")) != STR_NONE);
	buf_free(&out);
}

int main(void)
{
	test_lines();
	test_long();
	test_7bit();
	test_7bit_long();
	return tap_done();
}

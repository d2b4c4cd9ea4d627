/* Any message, in pieces that the input chooses: the wire has neither bare CR nor bare LF, no line
 * too long, one end of data, at its end; and without conversion taking the dots off gives the lines
 * back. */
#include "smtp/client_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(str wire)
{
	if (!str_ends(wire, S(".\r\n")))
		panic("no end");
	while (wire.n) {
		size_t n = str_find(wire, S("\r\n"));
		str line;

		if (n == STR_NONE)
			panic("no line end");
		line = str_head(wire, n);
		wire = str_from(wire, n + 2);
		if (str_find_char(line, '\r') != STR_NONE || str_find_char(line, '\n') != STR_NONE)
			panic("bare line end");
		/* The doubled dot may come on top. */
		if (line.n > SMTP_WIRE_LINE_MAX + 1)
			panic("line of %zu", line.n);
		if (str_eq(line, S(".")) && wire.n)
			panic("an early end of data");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct smtp_wire d;
	struct buf out;
	size_t step = size ? 1 + data[0] % 64u : 1;
	bool to_7bit = size && data[0] >= 128;

	buf_init(&out, SMTP_WIRE_OUT_MAX(size));
	if (smtp_wire_begin(&d, to_7bit))
		return 0;
	for (str in = str_from(str_of(data, size), 1); in.n; in = str_from(in, step))
		smtp_wire_add(&d, str_head(in, step), &out);
	smtp_wire_end(&d, &out);
	smtp_wire_free(&d);
	if (buf_failed(&out))
		panic("output beyond its bound");
	check(buf_str(&out));
	buf_free(&out);
	return 0;
}

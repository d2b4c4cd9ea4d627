/* The decoder against a plain reading of its rule, whatever the splits: the message ends at the
 * first CRLF.CRLF (the DATA command's CRLF counting), and is faulty exactly when what stands before
 * has a bare CR or LF, a NUL or an overlong line. */
#include "smtp/data.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t end_of(str s)
{
	if (str_starts(s, S(".\r\n")))
		return 3;
	for (size_t i = 0; i + 5 <= s.n; i++)
		if (memcmp(s.p + i, "\r\n.\r\n", 5) == 0)
			return i + 5;
	return STR_NONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct smtp_data d;
	struct buf out;
	size_t used = 0, piece, end;
	str in = str_of(data, size);

	if (size < 1)
		return 0;
	piece = 1 + data[0] % 64u;
	in = str_from(in, 1);
	buf_init(&out, size + 16);
	smtp_data_init(&d, true);
	while (used < in.n && !d.is_done)
		used += smtp_data_decode(&d, str_sub(in, used, piece), &out);
	end = end_of(in);
	assert(d.is_done == (end != STR_NONE));
	assert(used == (d.is_done ? end : in.n));
	if (d.is_done) {
		str body = str_head(in, end - 3);
		unsigned faults = 0;
		uint64_t line = 0;

		for (size_t i = 0; i < body.n; i++) {
			bool in_pair = body.p[i] == '\r' ? i + 1 < body.n && body.p[i + 1] == '\n'
							 : i > 0 && body.p[i - 1] == '\r';

			faults |= body.p[i] == 0 ? SMTP_DATA_NUL : 0u;
			faults |= body.p[i] == '\n' && !in_pair ? SMTP_DATA_BARE_LF : 0u;
			faults |= body.p[i] == '\r' && !in_pair ? SMTP_DATA_BARE_CR : 0u;
			line = body.p[i] == '\n' && in_pair ? 0 : line + 1;
			faults |= line > SMTP_TEXT_LINE_MAX + 2 ? SMTP_DATA_LINE_TOO_LONG : 0u;
		}
		assert((d.faults & ~(unsigned)SMTP_DATA_LINE_TOO_LONG) ==
		       (faults & ~(unsigned)SMTP_DATA_LINE_TOO_LONG));
		assert(d.faults || buf_len(&out) <= body.n);
	}
	buf_free(&out);
	return 0;
}

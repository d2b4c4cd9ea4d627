/* Any bytes as lines of replies: no fault, and what is kept is printable and within its limits. */
#include "smtp/client_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	str rest = str_of(data, size), text;
	struct smtp_answer r;

	smtp_answer_begin(&r);
	while (rest.n) {
		enum err err = smtp_answer_add(&r, str_cut_line(&rest), &text);

		if (err != ERR_PROTOCOL && (r.code < 200 || r.code > 599))
			panic("code %u", r.code);
		for (size_t i = 0; i < smtp_answer_text(&r).n; i++)
			if (r.text[i] < ' ' || r.text[i] > '~')
				panic("byte %d", r.text[i]);
		if (err != ERR_AGAIN)
			smtp_answer_begin(&r);
	}
	return 0;
}

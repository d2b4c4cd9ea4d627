/* The end of data, and nothing else: the decoder between DATA and its CRLF.CRLF (RFC
 * 5321 4.1.1.4, 4.5.2).
 *
 *	smtp_data_init(&d, true);
 *	while (!d.is_done)
 *		used = smtp_data_decode(&d, input, &out);      // input in pieces of any size
 *	if (d.faults) ... refuse: smtp_data_fault(&d)
 *
 * CRLF.CRLF alone ends the data. A CR or LF that is not part of a CRLF, a NUL or a line longer than
 * SMTP_TEXT_LINE_MAX is a fault: the decoder goes on to the true end, so that the connection stays
 * in step with what the client's own software thinks, and the whole message is refused there. After
 * a fault nothing is put out any more.
 *
 * The same checks are made on the chunks of BDAT (RFC 3030), which have no dots and no end:
 * smtp_data_init with `dots` false.
 */
#ifndef SMTP_DATA_H
#define SMTP_DATA_H

#include "base/buf.h"

enum {
	/* RFC 5321 4.5.3.1.6 asks for 1000 with the CRLF; senders exceed it (HTML on one line), and
	 * Postfix takes any. Nothing behind us reads line by line, so this only bounds what nobody
	 * would send in good faith. */
	SMTP_TEXT_LINE_MAX = 64 * 1024,
};

enum smtp_data_fault {
	SMTP_DATA_BARE_LF = 1,
	SMTP_DATA_BARE_CR = 2,
	SMTP_DATA_NUL = 4,
	SMTP_DATA_LINE_TOO_LONG = 8,
};

struct smtp_data {
	bool dots;	 /* DATA: undo dot-stuffing and find the end */
	bool is_done;	 /* the end was found: what follows is the next command */
	uint8_t state;	 /* enum data_state, in data.c */
	unsigned faults; /* set of enum smtp_data_fault */
	uint64_t line;	 /* bytes of the present line, so far */
};

void smtp_data_init(struct smtp_data *d, bool dots);

/* Takes input up to the end of data, appends the message's bytes to `out`, and returns how many
 * bytes it took: all of them unless is_done. `out` never gets more than `in` has. */
size_t smtp_data_decode(struct smtp_data *d, str in, struct buf *out);

/* BDAT's last chunk has ended. A CR at the very end is bare. Appends a CRLF to a last line that has
 * none, so that what is stored is lines. */
void smtp_data_end(struct smtp_data *d, struct buf *out);

/* The reply for the gravest fault: its text, *code and *status. NULL without faults. */
const char *smtp_data_fault_text(const struct smtp_data *d, uint16_t *code, const char **status);

#endif

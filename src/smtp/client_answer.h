/* Replies of an SMTP or LMTP server (RFC 5321 4.2, RFC 2034 4), read line by line.
 *
 *	smtp_answer_begin(&r);
 *	do {
 *		err = read_line(&line);
 *		err = err ? err : smtp_answer_add(&r, line, &text);
 *	} while (err == ERR_AGAIN);
 *
 * The server is as hostile as any client: lines and their number are bounded, and what is kept of
 * the text is printable ASCII of at most SMTP_ANSWER_TEXT_MAX bytes, fit for a log line, a bounce
 * and a queue record.
 */
#ifndef SMTP_CLIENT_ANSWER_H
#define SMTP_CLIENT_ANSWER_H

#include "base/str.h"

enum {
	SMTP_ANSWER_LINE_MAX = 4096, /* RFC 5321 4.5.3.1.5 says 512; real servers tell stories */
	SMTP_ANSWER_LINES_MAX = 256,
	SMTP_ANSWER_TEXT_MAX = 480, /* code and status included */
	SMTP_ANSWER_STATUS_MAX = 12,
};

struct smtp_answer {
	uint16_t code;	  /* 200 to 599 */
	uint16_t lines;	  /* read so far */
	uint8_t status_n; /* length of `status`, 0: the server gave none */
	uint16_t text_n;
	char status[SMTP_ANSWER_STATUS_MAX]; /* RFC 3463: "5.1.1", of the code's class */
	char text[SMTP_ANSWER_TEXT_MAX]; /* "550 5.1.1 No such user", its lines joined by spaces */
};

void smtp_answer_begin(struct smtp_answer *r);

/* Takes a line without its end. ERR_AGAIN: more lines follow; ERR_OK: this was the last;
 * ERR_PROTOCOL: not a reply, a code that changes between lines, or too many lines. *text: what
 * stands behind the code, borrowed from `line`, raw. */
MUST_USE enum err smtp_answer_add(struct smtp_answer *r, str line, str *text);

/* Borrowed from r. */
str smtp_answer_text(const struct smtp_answer *r);
str smtp_answer_status(const struct smtp_answer *r);

/* 2, 3, 4 or 5. */
static inline unsigned smtp_answer_class(const struct smtp_answer *r)
{
	return r->code / 100u;
}

/* The status code at the front of s (RFC 3463 2), when it has that class and a space or the end
 * follows it; empty otherwise. */
str smtp_status_parse(str s, unsigned class);

/* Copies s as printable ASCII into `out`, at most `max` bytes, what is neither as '?'; the count.
 */
size_t smtp_text_clean(str s, char *out, size_t max);

#endif

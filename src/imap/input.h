/* Bytes of the client -> whole commands.
 *
 *	in: "a LOGIN {5}\r\n"      -> IMAP_INPUT_CONTINUE (answer "+ OK")
 *	in: "alice {6+}\r\nsecret\r\n" -> IMAP_INPUT_COMMAND, in->text = "a LOGIN {5}\r\nalice
 * {6+}\r\nsecret"
 *
 * A command is collected as it came, literals inside, up to IMAP_LINE_MAX bytes. The messages of
 * APPEND are not collected: IMAP_INPUT_MESSAGE says that in->message_size bytes of one follow,
 * which the caller reads itself; what was said about it is in in->text. Nothing here waits,
 * allocates beyond its buffer or fails.
 */
#ifndef IMAP_INPUT_H
#define IMAP_INPUT_H

#include "imap/imap.h"

enum imap_input_step {
	IMAP_INPUT_MORE,     /* all was used; more bytes are needed */
	IMAP_INPUT_CONTINUE, /* a synchronising literal: send "+ OK" and go on feeding */
	IMAP_INPUT_COMMAND,  /* in->text is a command; imap_input_next when it was handled */
	IMAP_INPUT_MESSAGE,  /* of APPEND: imap_input_message_done or _refuse */
	IMAP_INPUT_TOO_LONG, /* over IMAP_LINE_MAX; it was thrown away; in->text is its beginning */
	IMAP_INPUT_FLOOD,    /* over discard_max: close */
};

struct imap_input {
	struct buf collected;
	str text; /* without the line's end; lives until imap_input_next */
	uint64_t message_size;
	bool is_sync; /* the message's literal waits for "+" */
	bool is_raw;  /* the next line is no command: "DONE", a SASL response; set by the caller */
	uint32_t parts; /* messages of this APPEND handled so far; then text begins behind the last
			   one */
	uint64_t literal;		 /* bytes of a collected literal still to come */
	uint64_t discard;		 /* bytes of a refused literal still to come */
	uint64_t discarded, discard_max; /* of this command; the caller may set the maximum */
	size_t line_start; /* where the line that is being collected begins in `collected` */
	bool is_too_long, refused;
};

void imap_input_init(struct imap_input *in);
void imap_input_free(struct imap_input *in);
/* *used: how many of `bytes` were taken. */
enum imap_input_step imap_input_feed(struct imap_input *in, str bytes, size_t *used);
void imap_input_next(struct imap_input *in);
/* The caller has read the message: what follows is more of the same APPEND, or its end. */
void imap_input_message_done(struct imap_input *in);
/* The message is not wanted. True: the client has not sent it, the command is over. False: it is on
 * its way, and feeding goes on: IMAP_INPUT_COMMAND comes when all of it has passed. */
bool imap_input_refuse(struct imap_input *in);
/* Nothing of a command has arrived. */
bool imap_input_is_idle(const struct imap_input *in);

#endif

/* An IMAP client: commands out, responses in. */
#ifndef SIM_IMAP_WIRE_H
#define SIM_IMAP_WIRE_H

#include "net/conn.h"
#include "sim/world.h"

enum wire_result { WIRE_LOST, WIRE_OK, WIRE_NO };

struct wire {
	struct client *client;
	struct account_model *account;
	struct conn *conn;
	struct buf response; /* the last one, literals in place */
	str literal;	     /* its last literal; in `response` */
	unsigned tag;
	char sent[200]; /* the last command */
	/* Called for each untagged response, without "* ". */
	void (*untagged)(void *arg, struct wire *i, str response);
	void *arg;
};

/* Connects and logs in. False: it could not (and waited a little). */
bool wire_open(struct wire *i, struct client *c, struct account_model *a);
void wire_close(struct wire *i);
/* Sends a command and reads to its end; the tagged response's text stays in i->response. BAD is a
 * violation and LOST. */
enum wire_result wire_command(struct wire *i, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* In two halves, for commands with literals and IDLE. */
void wire_send(struct wire *i, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum wire_result wire_finish(struct wire *i);
/* One response: "+", untagged or tagged. False: the connection is gone. */
bool wire_read(struct wire *i);

/* The number behind `what` in a response, 0 when it is not there. */
uint32_t wire_number(str response, const char *what);
/* FETCH: the row in a response; false when it is none, or has no UID. */
struct wire_row {
	uint32_t sequence, uid;
	bool has_flags, has_body;
	uint8_t flags;
	str body;
};
bool wire_row(struct wire *i, str response, struct wire_row *out);
/* APPENDUID and COPYUID (RFC 4315): the UIDs that were made; how many. */
unsigned wire_made(str response, uint32_t *uids, unsigned max);

/* Reads the whole account and compares it with the model. False: the connection went meanwhile. */
bool wire_audit(struct wire *i);
/* Reads what came to the selected mailbox `b` since the last look. False: gone. */
bool wire_poll(struct wire *i, struct box_model *b);

#endif

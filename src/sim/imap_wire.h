/* An IMAP client: commands out, responses in. */
#ifndef SIM_IMAP_WIRE_H
#define SIM_IMAP_WIRE_H

#include "net/conn.h"
#include "sim/world.h"

enum imap_result { IMAP_LOST, IMAP_OK, IMAP_NO };

struct imap {
	struct client *client;
	struct account_model *account;
	struct conn *conn;
	struct buf response; /* the last one, literals in place */
	str literal;	     /* its last literal; in `response` */
	unsigned tag;
	/* Called for each untagged response, without "* ". */
	void (*untagged)(void *arg, struct imap *i, str response);
	void *arg;
};

/* Connects and logs in. False: it could not (and waited a little). */
bool imap_open(struct imap *i, struct client *c, struct account_model *a);
void imap_close(struct imap *i);
/* Sends a command and reads to its end; the tagged response's text stays in i->response. BAD is a
 * violation and LOST. */
enum imap_result imap_command(struct imap *i, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* In two halves, for commands with literals and IDLE. */
void imap_send(struct imap *i, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum imap_result imap_finish(struct imap *i);
/* One response: "+", untagged or tagged. False: the connection is gone. */
bool imap_read(struct imap *i);

/* The number behind `what` in a response, 0 when it is not there. */
uint32_t imap_number(str response, const char *what);
/* FETCH: the row in a response; false when it is none, or has no UID. */
struct imap_row {
	uint32_t sequence, uid;
	bool has_flags, has_body;
	uint8_t flags;
	str body;
};
bool imap_row(struct imap *i, str response, struct imap_row *out);
/* APPENDUID and COPYUID (RFC 4315): the UIDs that were made; how many. */
unsigned imap_made(str response, uint32_t *uids, unsigned max);

/* Reads the whole account and compares it with the model. False: the connection went meanwhile. */
bool imap_audit(struct imap *i);
/* Reads what came to the selected mailbox `b` since the last look. False: gone. */
bool imap_poll(struct imap *i, struct box_model *b);

#endif

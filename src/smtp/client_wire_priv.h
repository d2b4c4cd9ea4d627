/* What client_wire.c and client_downgrade.c share: a line goes through in one or more segments. */
#ifndef SMTP_CLIENT_WIRE_PRIV_H
#define SMTP_CLIENT_WIRE_PRIV_H

#include "smtp/client_wire.h"

struct segment {
	str text;    /* no CR or LF in it */
	bool begins; /* a line; the others go on with one that was too long */
	bool ends;   /* it */
};

/* To the wire: the dot, the fold of an overlong line, the CRLF. */
void segment_write(struct segment s, struct buf *out);

struct smtp_downgrade *smtp_downgrade_new(void); /* NULL: no memory */
void smtp_downgrade_free(struct smtp_downgrade *d);
void smtp_downgrade_add(struct smtp_downgrade *d, struct segment s, struct buf *out);
/* The message is over, perhaps in the middle of a header. */
void smtp_downgrade_end(struct smtp_downgrade *d, struct buf *out);

#endif

/* The Received field that we put before every message (RFC 5321 4.4). */
#ifndef SMTP_RECEIVED_H
#define SMTP_RECEIVED_H

#include "base/addr.h"
#include "base/buf.h"

#include "text/date.h"

/* What it takes, written out. */
enum { SMTP_RECEIVED_MAX = 2048 };

struct smtp_received {
	str helo;		   /* raw: what may not stand in a field becomes '?' */
	const struct addr *client; /* ADDR_UNIX: without an address */
	str myhostname;
	bool is_lmtp, is_extended; /* EHLO rather than HELO */
	bool is_utf8, is_tls, is_authenticated;
	str tls;       /* "TLSv1.3 TLS_AES_256_GCM_SHA384" */
	str id;	       /* the message id as text */
	str recipient; /* empty: more than one, and none is told to the others */
	struct date date;
};

/* The whole field with its folds and last CRLF. */
void smtp_received_write(const struct smtp_received *r, struct buf *out);

#endif

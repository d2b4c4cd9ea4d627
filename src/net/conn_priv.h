/* The inside of a connection, shared by conn.c (bytes and lines), conn_tls.c (the record layer
 * below them) and conn_relay.c. */
#ifndef NET_CONN_PRIV_H
#define NET_CONN_PRIV_H

#include "net/conn.h"
#include "net/tls_priv.h"

enum {
	CONN_READ_FIRST = 16 * 1024, /* one recv asks for so much at first, */
	CONN_READ_LARGE = 64 * 1024, /* and for so much after one that was filled */
	CONN_TLS_RECORD = 16 * 1024, /* RFC 8446 5.1: plaintext in one record */
	CONN_DRAIN_MAX = 64 * 1024,  /* read and dropped at the end, so that close sends no reset */
	CONN_TLS_TEXT = 80,
};

struct relay;

struct conn {
	struct loop *loop;
	struct watch watch;
	int fd;
	struct buf in;		       /* received, in clear, not yet handed out */
	struct buf out;		       /* to be sent, in clear */
	struct fiber *reader, *writer; /* set only while they wait here */
	int64_t deadline;
	enum err dead;	    /* why nothing works any more; ERR_OK while it does */
	size_t searched;    /* bytes of `in` known to hold no LF */
	size_t discarded;   /* see CONN_DISCARD_MAX */
	uint32_t read_size; /* of the next recv */
	bool can_read;	    /* the socket may hold bytes: no ERR_AGAIN since the last event */
	bool can_write;
	bool is_hung_up;  /* its end was reported: go on reading until it is seen */
	bool is_eof;	  /* it was seen */
	bool is_skipping; /* the rest of a line that is too long */
	bool had_crlf;
	bool is_parked;
	bool is_cancelled;
	struct timer timer; /* while parked */
	struct task task;   /* what a parked connection waits for is there already */
	enum err task_why;
	void (*park_fn)(void *arg, enum err why);
	void *park_arg;
	struct relay *relay;
	struct conn_tls *tls;
	struct addr peer, local;
};

/* The record layer; NULL in conn.tls without TLS. */
struct conn_tls {
	SSL *ssl;
	struct tls_certs *certs; /* a server's: what it was accepted with */
	struct buf raw;		 /* received records not yet taken by OpenSSL */
	struct buf wire;	 /* records not yet sent */
	bool is_ready;		 /* the handshake is done */
	bool is_broken;		 /* a fatal alert came or went: say no more */
	char text[CONN_TLS_TEXT];
	char name[256]; /* a client's: the server's certificate is for this name */
	bool is_verified;
};

/* One read into c->in, without waiting: ERR_OK when bytes were added, ERR_AGAIN, ERR_EOF, or the
 * error that killed the connection. */
MUST_USE enum err conn_receive(struct conn *c);
/* recv with the bookkeeping of edges. */
MUST_USE enum err conn_recv(struct conn *c, void *p, size_t n, size_t *done);
/* Sends what can be sent without waiting: ERR_AGAIN when something is left. */
MUST_USE enum err conn_send(struct conn *c);
/* Sends from b until it is empty: ERR_AGAIN when the socket is full. */
MUST_USE enum err conn_send_buf(struct conn *c, struct buf *b);
bool conn_has_output(const struct conn *c);
/* Until the socket may be read (or output left can go on). The fiber's one wait as a reader. */
MUST_USE enum err conn_wait_input(struct conn *c);
/* Nothing works from now on; remembers the first reason. Returns it. */
enum err conn_kill(struct conn *c, enum err why);
void conn_release_empty(struct conn *c);

/* conn_tls.c */
MUST_USE enum err conn_tls_receive(struct conn *c);
/* Turns c->out into records until `wire` is well filled. */
MUST_USE enum err conn_tls_seal(struct conn *c);
void conn_tls_goodbye(struct conn *c); /* close_notify into `wire` */
void conn_tls_free(struct conn *c);

/* conn_relay.c: an event for a connection that is being relayed. */
void relay_on_conn(struct relay *r);
/* Looks again in the next turn of the loop. */
void relay_wake(struct relay *r);

#endif

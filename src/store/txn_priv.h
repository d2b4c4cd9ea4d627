/* Transactions from inside: txn.c (parts, and what becomes of them), txn_rcpts.c (who gets the
 * message), txn_commit.c (the one commit). */
#ifndef STORE_TXN_PRIV_H
#define STORE_TXN_PRIV_H

#include "store/store_priv.h"

#include "base/trace.h"

enum {
	TXN_PART_MAX = 4 * 1024 * 1024, /* recipients of one transaction, encoded */
};

struct txn {
	struct txn *next; /* in its slot */
	struct store *store;
	uint64_t id;
	int64_t since;
	size_t bytes;
	bool has_envelope, has_body, has_verdict;
	enum err failed; /* a part was wrong: told when there is somebody to tell */
	/* From auth: the envelope, or a refusal. */
	struct {
		uint16_t code; /* 0: none */
		str status, text;
	} refusal;
	char *text; /* sender, envid; or the refusal's words */
	str sender, envid;
	uint64_t submitter;
	bool is_smtputf8;
	uint8_t body_type, ret;
	uint32_t expected, received; /* recipients */
	struct buf rcpts, ends;
	/* From filter. */
	uint8_t hash[32];
	uint16_t code;
	bool has_parse;
	struct buf verdict; /* status, text, headers, envelope, structure */
	str status, reply_text, headers, parsed_envelope, structure;
	/* From front. */
	struct body_job *job; /* the body is being sealed */
	struct sealed body;
	uint32_t rcpt_count;
	store_txn_done *done;
	void *arg;
};

/* ---- txn.c ---- */

void txn_trace(struct store *s, uint64_t message, enum trace_event event, str sender, str recipient,
	       const char *fmt, ...) PRINTF_LIKE(6, 7);
/* The one table from errors to replies: what may pass is 4yz. */
void txn_reply_for_error(enum err err, uint16_t *code, str *status, str *text);
void txn_reply_send(store_txn_done *done, void *arg, uint64_t txn, uint16_t code, str status,
		    str text);
void txn_remove(struct store *s, uint64_t id);

/* ---- txn_rcpts.c ---- */

/* A RCPT whose sender must be told that it was delivered, or that it was an alias of several. */
struct owed {
	struct rec_txn_rcpt rcpt;
	enum queue_state state;
};

/* Two RCPTs, or an alias and its target, may end in one account: it gets the message once. The list
 * of who gets it, each once; found by a table, as lists of thousands are real. Notices are owed to
 * each RCPT that asked. */
struct rcpt_list {
	struct rec_txn_rcpt *items;
	uint32_t *slots; /* index + 1 */
	size_t count, slot_mask;
	struct owed *owed; /* NULL while there is none */
	size_t owed_count;
};

MUST_USE enum err rcpt_list_make(const struct txn *t, struct rcpt_list *l);
void rcpt_list_free(struct rcpt_list *l);

/* ---- txn_commit.c ---- */

/* All parts are here and agree. The transaction is gone, unless this fails. */
MUST_USE enum err txn_commit(struct store *s, struct txn *t);

#endif

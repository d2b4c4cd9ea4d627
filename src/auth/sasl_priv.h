/* The engines behind sasl.h. */
#ifndef AUTH_SASL_PRIV_H
#define AUTH_SASL_PRIV_H

#include "auth/password.h"
#include "auth/sasl.h"
#include "auth/scram.h"

enum sasl_state {
	SASL_STATE_NEW,
	SASL_STATE_FIRST,     /* the first message of a mechanism whose client speaks first */
	SASL_STATE_PASSWORD,  /* LOGIN: the name is known */
	SASL_STATE_LOOKUP,    /* SCRAM: the caller looks up */
	SASL_STATE_PROOF,     /* SCRAM: client-final-message */
	SASL_STATE_SIGNATURE, /* SCRAM: the client has our signature and answers with nothing */
	SASL_STATE_OVER,
};

struct sasl {
	enum sasl_mechanism mechanism;
	enum sasl_state state;
	struct sasl_secrets secrets;
	char name[SASL_NAME_MAX], password[PASSWORD_MAX];
	size_t name_size, password_size;
	/* SCRAM */
	char gs2[SASL_NAME_MAX * 3 +
		 8]; /* gs2-header as sent: "n,a=...,", commas and equal signs escaped */
	size_t gs2_size;
	/* Grows: client-first-bare, server-first, client-final without its proof. */
	struct buf auth_message;
	size_t nonce_at, nonce_size; /* client's and ours, in auth_message's server-first part */
	struct scram_credentials credentials;
	bool known; /* the credentials are real */
};

/* ERR_SYNTAX unless it is UTF-8 without NUL and not empty; ERR_TOO_LONG. */
MUST_USE enum err sasl_set_name(struct sasl *s, str name);
/* Bytes without NUL, not empty. */
MUST_USE enum err sasl_set_password(struct sasl *s, str password);

MUST_USE enum err sasl_scram_first(struct sasl *s, str message, enum sasl_next *next);
MUST_USE enum err sasl_scram_stored(struct sasl *s, str stored, struct buf *reply,
				    enum sasl_next *next);
MUST_USE enum err sasl_scram_final(struct sasl *s, str message, struct buf *reply,
				   enum sasl_next *next);

#endif

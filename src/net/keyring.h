/* The private keys of TLS: read, kept and used in role `keys` alone.
 *
 * A keyring is made whole and then only used: a reload makes another one. It signs nothing but the
 * handshakes of a TLS server, and it looks at the whole text to be sure (keyring_sign).
 *
 *	keyring_new(&k);
 *	keyring_add(k, certificates, key, &why);     // PEM; more pairs may follow, the first is the
 * default keyring_chains(k, &chains);                  // for keys_chains_reply keyring_sign(k, 0,
 * S("SHA256"), false, text, signature, &n);
 */
#ifndef NET_KEYRING_H
#define NET_KEYRING_H

#include "base/buf.h"

enum {
	KEYRING_KEYS_MAX = 16,
	KEYRING_CHAIN_MAX = 16384,     /* bytes of one chain in DER: messages.def, keys_chain */
	KEYRING_FILE_MAX = 256 * 1024, /* bytes of a PEM file */
	KEYRING_SIGNATURE_MAX = 512,
};

struct keyring;

/* A heap for keys that is locked in memory, not dumped, and fenced with guard pages. Once per
 * process, before the sandbox. ERR_UNSUPPORTED: it is there, but the kernel did not lock it
 * (RLIMIT_MEMLOCK). */
MUST_USE enum err keyring_secure_memory(void);
/* Memory of that heap for a file's text; freed memory is wiped. */
MUST_USE char *keyring_secure_alloc(size_t n);
void keyring_secure_free(char *p, size_t n);

MUST_USE enum err keyring_new(struct keyring **out);
void keyring_free(struct keyring *k); /* NULL is allowed */

/* A certificate chain, leaf first, and its key, both PEM, the key not encrypted. EC P-256 or
 * P-384, RSA of 2048 to 4096 bits, Ed25519. On error *why says what is wrong (a constant), and the
 * keyring is as before. */
MUST_USE enum err keyring_add(struct keyring *k, str certificates, str key, const char **why);
size_t keyring_count(const struct keyring *k);
/* Appends a RECORD keys_chain for each pair; keys are numbered from 0. */
void keyring_chains(const struct keyring *k, struct buf *out);
/* "CN or first name" of a pair's leaf, for the log, and the days until it ends (negative: it has).
 */
str keyring_name(const struct keyring *k, size_t i);
int keyring_days_left(const struct keyring *k, size_t i, int64_t wall_us);

/* digest: "SHA256", "SHA384", "SHA512", or "" with Ed25519. pss: RSA with PSS, salt as long as the
 * digest. signature has room for KEYRING_SIGNATURE_MAX bytes. ERR_DENIED: the text is not a
 * handshake of a TLS server, or key and algorithm do not fit; ERR_NOT_FOUND: no such key. */
MUST_USE enum err keyring_sign(const struct keyring *k, unsigned number, str digest, bool pss,
			       str text, unsigned char *signature, size_t *n);

/* What a text to be signed is. */
enum keyring_text { KEYRING_TEXT_OTHER, KEYRING_TEXT_TLS12, KEYRING_TEXT_TLS13 };
enum keyring_text keyring_text(str text);

#endif

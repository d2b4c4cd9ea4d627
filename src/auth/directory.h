/* The directory: domains, accounts and aliases, in one SQLite file that an administrator can open
 * with a shell.
 *
 *	struct directory *d;
 *	err = directory_open("directory.db", &options, &d, why);
 *	err = directory_domain_add(d, S("example.test"));
 *	err = directory_account_add(d, S("alice@example.test"), &record, quota, now, &id);
 *	err = directory_account_find(d, S("Alice@Example.Test"), arena, &account);
 *
 * Names go in as anybody writes them and come out canonical (auth/address.h). Results live in the
 * arena given. One handle belongs to one process and one thread; any number of processes may have
 * the file open.
 *
 * ERRORS, of every function here:
 *	ERR_SYNTAX, ERR_TOO_LONG   the name is none
 *	ERR_DENIED                 its domain is not in the directory
 *	ERR_EXISTS, ERR_NOT_FOUND  certainly so: the query succeeded
 *	ERR_CONFLICT               a domain that is in use; an alias of itself
 *	ERR_TOO_MANY               more targets of one alias than DIRECTORY_TARGETS_MAX
 *	ERR_RANGE                  a quota above DIRECTORY_QUOTA_MAX
 *	ERR_NO_MEMORY              the arena's budget
 *	ERR_TEMPORARY              the query failed, or the file was locked; nothing was changed.
 *	                           directory_failure says why, for the log
 *
 * BLOCKING: reads take 5 to 50 microseconds from the page cache. Writes wait for an fdatasync and,
 * when another process writes, for up to DIRECTORY_BUSY_MS: do them in a worker or a command.
 * Opening checks the file (about a millisecond; up to DIRECTORY_BUSY_MS).
 *
 * CHANGES: every write, by whatever process or shell, raises a counter in the same transaction (by
 * triggers). directory_refresh sees whether it moved, at the price of 3 microseconds: call it
 * once per turn of the loop, and directory_changes then costs nothing. Caches drop what they hold
 * when it differs.
 */
#ifndef AUTH_DIRECTORY_H
#define AUTH_DIRECTORY_H

#include "auth/password.h"
#include "base/arena.h"

enum {
	DIRECTORY_BUSY_MS = 2000,
	DIRECTORY_TARGETS_MAX = 1000, /* of one alias; RFC 5321 4.5.3.1.8 asks for 100 recipients */
	DIRECTORY_PAGE_MAX = 1000,    /* rows of one listing */
	DIRECTORY_SECRET_SIZE = 32,
	DIRECTORY_WHY_SIZE = 256,
};
#define DIRECTORY_QUOTA_MAX ((uint64_t)INT64_MAX)

struct directory;

struct directory_options {
	bool create; /* make the file (mode 0600) when it is not there; fill an empty one */
	/* Random: becomes the directory's secret when it is created, and is not looked at
	 * otherwise. */
	uint8_t secret[DIRECTORY_SECRET_SIZE];
};

/* On an error `why` is a sentence, NUL-terminated. ERR_NOT_FOUND: no file, and not `create`.
 * ERR_CONFIG: not a directory of Posthorn, or of a newer version of it; the file was not changed.
 * ERR_TEMPORARY: it cannot be opened or read now. */
MUST_USE enum err directory_open(const char *path, const struct directory_options *options,
				 struct directory **out, char why[DIRECTORY_WHY_SIZE]);
void directory_close(struct directory *d); /* NULL is allowed */

/* What the last ERR_TEMPORARY was, in SQLite's words; valid until the next failure. */
str directory_failure(const struct directory *d);
/* Random bytes of this directory that never change: for SCRAM's answers to unknown names. */
const uint8_t *directory_secret(const struct directory *d);

MUST_USE enum err directory_refresh(struct directory *d);
uint64_t directory_changes(const struct directory *d);

/* All reads between these two see one state, and directory_changes is that state's. Do not nest, do
 * not write between them. After an error of the first, do not call the second. */
MUST_USE enum err directory_read_begin(struct directory *d);
void directory_read_end(struct directory *d);

struct directory_names {
	const str *names;
	size_t count;
};

MUST_USE enum err directory_domain_add(struct directory *d, str name);
/* ERR_CONFLICT while it has accounts or aliases. */
MUST_USE enum err directory_domain_remove(struct directory *d, str name);
/* ERR_OK or ERR_NOT_FOUND. `domain` is canonical. */
MUST_USE enum err directory_domain_find(struct directory *d, str domain);
/* Up to DIRECTORY_PAGE_MAX names in order, behind `after` (empty: from the first). */
MUST_USE enum err directory_domain_list(struct directory *d, str after, struct arena *a,
					struct directory_names *out);

struct directory_account {
	uint64_t id;	/* from 1; never given to another account, even after removal */
	str address;	/* canonical */
	str hash;	/* {SCHEME}... */
	str scram;	/* {SCRAM-SHA-256}... or empty */
	uint64_t quota; /* bytes; 0: none */
	bool enabled;
	int64_t created; /* seconds since 1970 */
};

struct directory_accounts {
	const struct directory_account *accounts;
	size_t count;
};

/* ERR_EXISTS when an account or an alias has this address. */
MUST_USE enum err directory_account_add(struct directory *d, str address,
					const struct password_record *password, uint64_t quota,
					int64_t created, uint64_t *id);
/* Aliases that lead to it stay, and lead nowhere. Stored mail is the store's to remove. */
MUST_USE enum err directory_account_remove(struct directory *d, str address);
MUST_USE enum err directory_set_password(struct directory *d, str address,
					 const struct password_record *password);
MUST_USE enum err directory_set_quota(struct directory *d, str address, uint64_t quota);
MUST_USE enum err directory_set_enabled(struct directory *d, str address, bool enabled);
MUST_USE enum err directory_account_find(struct directory *d, str address, struct arena *a,
					 struct directory_account *out);
MUST_USE enum err directory_account_find_id(struct directory *d, uint64_t id, struct arena *a,
					    struct directory_account *out);
/* The same for a key that auth/address.h made, without parsing it again. */
MUST_USE enum err directory_account_find_key(struct directory *d, str key, struct arena *a,
					     struct directory_account *out);
/* Can every enabled account log in with SCRAM? *out is true when there is none that could not. */
MUST_USE enum err directory_all_have_scram(struct directory *d, bool *out);
/* In order of address; of one domain, or of all when it is empty. */
MUST_USE enum err directory_account_list(struct directory *d, str domain, str after,
					 struct arena *a, struct directory_accounts *out);

struct directory_alias {
	str address; /* canonical, or "@domain": whatever else is not known there */
	str target;  /* an address; its local part as it was written when its domain is not ours */
};

struct directory_aliases {
	const struct directory_alias *aliases;
	size_t count;
};

/* ERR_EXISTS: this pair is there, or an account has this address (an account is found before an
 * alias, so the alias would never be looked at). */
MUST_USE enum err directory_alias_add(struct directory *d, str address, str target);
/* One pair, or all targets when `target` is empty. */
MUST_USE enum err directory_alias_remove(struct directory *d, str address, str target);
/* In order of address, then target; `after` is the last one of the page before, or NULL. */
MUST_USE enum err directory_alias_list(struct directory *d, str domain,
				       const struct directory_alias *after, struct arena *a,
				       struct directory_aliases *out);
/* The targets of a key (or "@domain"). ERR_NOT_FOUND when there are none. */
MUST_USE enum err directory_alias_targets(struct directory *d, str key, struct arena *a,
					  struct directory_names *out);

#endif

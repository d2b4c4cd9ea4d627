/* Domains and accounts. Every write is one transaction that first asks what it needs to know, so
 * that its answer (exists, not found, denied) is true of the state it changed. */
#include "auth/directory_priv.h"

/* The columns of ACCOUNT_COLUMNS in directory.def. */
enum account_column {
	ACCOUNT_ID,
	ACCOUNT_ADDRESS,
	ACCOUNT_HASH,
	ACCOUNT_SCRAM,
	ACCOUNT_QUOTA,
	ACCOUNT_ENABLED,
	ACCOUNT_CREATED,
};

/* Parsing needs a few hundred bytes; addresses that are only looked up do not stay in the caller's
 * arena. */
enum { SCRATCH_SIZE = 8192 };

enum err directory_domain_find(struct directory *d, str domain)
{
	return query_one(d, QUERY_DOMAIN_FIND, domain.n ? domain : S(""), NULL);
}

static enum err domain_insert(struct directory *d, str domain)
{
	struct query q;
	enum err err = directory_domain_find(d, domain);

	if (err != ERR_NOT_FOUND)
		return err ? err : ERR_EXISTS;
	q = query_begin(d, QUERY_DOMAIN_ADD);
	query_text(&q, 1, domain);
	return query_change(&q);
}

static enum err domain_delete(struct directory *d, str domain)
{
	struct query q;
	enum err err = query_one(d, QUERY_DOMAIN_USED, domain, NULL);

	if (err != ERR_NOT_FOUND)
		return err ? err : ERR_CONFLICT;
	q = query_begin(d, QUERY_DOMAIN_REMOVE);
	query_text(&q, 1, domain);
	return query_change(&q);
}

static enum err domain_write(struct directory *d, str name,
			     enum err (*write)(struct directory *, str))
{
	struct arena *scratch = arena_new(SCRATCH_SIZE);
	enum err err = scratch ? ERR_OK : ERR_NO_MEMORY;
	str domain;

	if (!err)
		err = auth_domain_parse(name, scratch, &domain);
	if (!err && !(err = write_begin(d)))
		err = write_end(d, write(d, domain));
	arena_free(scratch);
	return err;
}

enum err directory_domain_add(struct directory *d, str name)
{
	return domain_write(d, name, domain_insert);
}

enum err directory_domain_remove(struct directory *d, str name)
{
	return domain_write(d, name, domain_delete);
}

enum err directory_domain_list(struct directory *d, str after, struct arena *a,
			       struct directory_names *out)
{
	str *names = arena_array(a, DIRECTORY_PAGE_MAX, sizeof(*names));
	struct query q = query_begin(d, QUERY_DOMAIN_LIST);
	enum err err;

	if (!names)
		return ERR_NO_MEMORY;
	*out = (struct directory_names){ .names = names };
	query_text(&q, 1, after);
	query_number(&q, 2, DIRECTORY_PAGE_MAX);
	while (!(err = query_step(&q)) && !(err = query_column(&q, 0, a, &names[out->count])))
		out->count++;
	query_end(&q);
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

enum err directory_all_have_scram(struct directory *d, bool *out)
{
	enum err err = query_one(d, QUERY_ACCOUNT_NO_SCRAM, STR_EMPTY, NULL);

	*out = err == ERR_NOT_FOUND;
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err account_row(struct query *q, struct arena *a, struct directory_account *out)
{
	enum err err;

	if ((err = query_column(q, ACCOUNT_ADDRESS, a, &out->address)) ||
	    (err = query_column(q, ACCOUNT_HASH, a, &out->hash)) ||
	    (err = query_column(q, ACCOUNT_SCRAM, a, &out->scram)))
		return err;
	out->id = (uint64_t)sqlite3_column_int64(q->s, ACCOUNT_ID);
	out->quota = (uint64_t)sqlite3_column_int64(q->s, ACCOUNT_QUOTA);
	out->enabled = sqlite3_column_int64(q->s, ACCOUNT_ENABLED) != 0;
	out->created = sqlite3_column_int64(q->s, ACCOUNT_CREATED);
	return ERR_OK;
}

static enum err account_get(struct query *q, struct arena *a, struct directory_account *out)
{
	enum err err = query_step(q);

	if (!err)
		err = account_row(q, a, out);
	query_end(q);
	return err;
}

enum err directory_account_find_key(struct directory *d, str key, struct arena *a,
				    struct directory_account *out)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_FIND);

	query_text(&q, 1, key);
	return account_get(&q, a, out);
}

enum err directory_account_find_id(struct directory *d, uint64_t id, struct arena *a,
				   struct directory_account *out)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_FIND_ID);

	query_number(&q, 1, id > INT64_MAX ? -1 : (int64_t)id);
	return account_get(&q, a, out);
}

enum err directory_account_find(struct directory *d, str address, struct arena *a,
				struct directory_account *out)
{
	struct auth_address parsed;
	enum err err = auth_address_parse(address, a, &parsed);

	return err ? err : directory_account_find_key(d, parsed.key, a, out);
}

enum err directory_account_list(struct directory *d, str domain, str after, struct arena *a,
				struct directory_accounts *out)
{
	struct directory_account *rows = arena_array(a, DIRECTORY_PAGE_MAX, sizeof(*rows));
	struct query q = query_begin(d, domain.n ? QUERY_ACCOUNT_LIST_DOMAIN : QUERY_ACCOUNT_LIST);
	enum err err = ERR_OK;

	if (!rows)
		return ERR_NO_MEMORY;
	*out = (struct directory_accounts){ .accounts = rows };
	if (domain.n && (err = auth_domain_parse(domain, a, &domain)))
		return err;
	query_text(&q, 1, after);
	query_number(&q, 2, DIRECTORY_PAGE_MAX);
	if (domain.n)
		query_text(&q, 3, domain);
	while (!(err = query_step(&q)) && !(err = account_row(&q, a, &rows[out->count])))
		out->count++;
	query_end(&q);
	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* What a new account must find: its domain, and its address free. */
static enum err account_may_be(struct directory *d, const struct auth_address *address)
{
	enum err err = require_domain(d, address->domain);

	if (err)
		return err;
	if ((err = query_one(d, QUERY_ACCOUNT_EXISTS, address->key, NULL)) == ERR_NOT_FOUND)
		err = query_one(d, QUERY_ALIAS_EXISTS, address->key, NULL);
	return err == ERR_OK ? ERR_EXISTS : err == ERR_NOT_FOUND ? ERR_OK : err;
}

enum err directory_account_add(struct directory *d, str text,
			       const struct password_record *password, uint64_t quota,
			       int64_t created, uint64_t *id)
{
	struct arena *scratch = arena_new(SCRATCH_SIZE);
	enum err err = scratch ? ERR_OK : ERR_NO_MEMORY;
	struct auth_address address;
	struct query q;

	if (!err && quota > DIRECTORY_QUOTA_MAX)
		err = ERR_RANGE;
	if (err || (err = auth_address_parse(text, scratch, &address)) || (err = write_begin(d)))
		goto out;
	if (!(err = account_may_be(d, &address))) {
		q = query_begin(d, QUERY_ACCOUNT_ADD);
		query_text(&q, 1, address.key);
		query_text(&q, 2, address.domain);
		query_text(&q, 3, password->hash);
		query_text(&q, 4, password->scram);
		query_number(&q, 5, (int64_t)quota);
		query_number(&q, 6, created);
		err = query_change(&q);
		*id = (uint64_t)sqlite3_last_insert_rowid(d->db);
	}
	err = write_end(d, err);
out:
	arena_free(scratch);
	return err;
}

/* One row of accounts: ?1 is the address, ?2 and ?3 are bound by the caller in `q`. */
static enum err account_change(struct query *q, str text)
{
	struct arena *scratch = arena_new(SCRATCH_SIZE);
	enum err err = scratch ? ERR_OK : ERR_NO_MEMORY;
	struct directory *d = q->d;
	struct auth_address address;

	if (!err && !(err = auth_address_parse(text, scratch, &address)) &&
	    !(err = write_begin(d))) {
		query_text(q, 1, address.key);
		err = write_end(d, query_change(q));
	}
	query_end(q);
	arena_free(scratch);
	return err;
}

enum err directory_account_remove(struct directory *d, str address)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_REMOVE);

	return account_change(&q, address);
}

enum err directory_set_password(struct directory *d, str address,
				const struct password_record *password)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_PASSWORD);

	query_text(&q, 2, password->hash);
	query_text(&q, 3, password->scram);
	return account_change(&q, address);
}

enum err directory_set_quota(struct directory *d, str address, uint64_t quota)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_QUOTA);

	if (quota > DIRECTORY_QUOTA_MAX)
		return ERR_RANGE;
	query_number(&q, 2, (int64_t)quota);
	return account_change(&q, address);
}

enum err directory_set_enabled(struct directory *d, str address, bool enabled)
{
	struct query q = query_begin(d, QUERY_ACCOUNT_ENABLED);

	query_number(&q, 2, enabled);
	return account_change(&q, address);
}

/* The directory's statements, transactions, and its change counter.
 *
 * The change counter is raised by triggers and not by this code, so that a row changed in the
 * sqlite3 shell empties the caches of a running server too. Reading it in each look-up would cost a
 * query; instead PRAGMA data_version, which only compares two numbers in shared memory, says
 * whether another connection has committed, and our own commits are known here.
 *
 * A failed query is never "not found": every path through query_step keeps the two apart.
 */
#include "auth/directory_priv.h"

#include <stdio.h>

enum err directory_failed(struct directory *d)
{
	snprintf(d->failure, sizeof(d->failure), "%s", sqlite3_errmsg(d->db));
	return ERR_TEMPORARY;
}

struct query query_begin(struct directory *d, enum directory_query which)
{
	return (struct query){ .d = d, .s = d->statements[which] };
}

void query_text(struct query *q, int at, str text)
{
	if (sqlite3_bind_text64(q->s, at, text.n ? text.p : "", text.n, SQLITE_STATIC,
				SQLITE_UTF8) != SQLITE_OK)
		q->failed = true;
}

void query_number(struct query *q, int at, int64_t v)
{
	if (sqlite3_bind_int64(q->s, at, v) != SQLITE_OK)
		q->failed = true;
}

enum err query_step(struct query *q)
{
	/* Without this an unbound parameter would be NULL, match nothing, and look like "not
	 * found". */
	if (q->failed)
		return directory_failed(q->d);
	switch (sqlite3_step(q->s)) {
	case SQLITE_ROW:
		return ERR_OK;
	case SQLITE_DONE:
		return ERR_NOT_FOUND;
	default:
		return directory_failed(q->d);
	}
}

void query_end(struct query *q)
{
	sqlite3_reset(q->s);
	sqlite3_clear_bindings(q->s);
}

enum err query_column(struct query *q, int column, struct arena *a, str *out)
{
	const unsigned char *text = sqlite3_column_text(q->s, column);
	int n = sqlite3_column_bytes(q->s, column);

	if (!text)
		return ERR_NO_MEMORY; /* no column may be NULL */
	*out = arena_str(a, str_of(text, (size_t)n));
	return out->p ? ERR_OK : ERR_NO_MEMORY;
}

enum err query_one(struct directory *d, enum directory_query which, str text, int64_t *out)
{
	struct query q = query_begin(d, which);
	enum err err;

	if (text.p)
		query_text(&q, 1, text);
	err = query_step(&q);
	if (!err && out)
		*out = sqlite3_column_int64(q.s, 0);
	query_end(&q);
	return err;
}

enum err query_change(struct query *q)
{
	enum err err = query_step(q);

	query_end(q);
	if (err != ERR_NOT_FOUND)
		return err == ERR_OK ? directory_failed(q->d) : err;
	return sqlite3_changes(q->d->db) ? ERR_OK : ERR_NOT_FOUND;
}

/* A statement that is a whole transaction step: done is success. */
static enum err run(struct directory *d, enum directory_query which)
{
	enum err err = query_one(d, which, STR_EMPTY, NULL);

	return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err read_changes(struct directory *d, uint64_t *changes)
{
	int64_t v;
	enum err err = query_one(d, QUERY_CHANGES, STR_EMPTY, &v);

	if (err)
		return err == ERR_NOT_FOUND ? directory_failed(d) : err;
	*changes = (uint64_t)v;
	return ERR_OK;
}

enum err write_begin(struct directory *d)
{
	return run(d, QUERY_BEGIN_WRITE);
}

enum err write_end(struct directory *d, enum err err)
{
	uint64_t changes = 0;

	if (!err)
		err = read_changes(d, &changes);
	if (!err)
		err = run(d, QUERY_COMMIT);
	if (!err)
		d->changes = changes;
	else if (!sqlite3_get_autocommit(d->db) && run(d, QUERY_ROLLBACK) != ERR_OK)
		return ERR_TEMPORARY;
	return err;
}

enum err directory_read_begin(struct directory *d)
{
	enum err err = run(d, QUERY_BEGIN_READ);

	if (err)
		return err;
	/* The first read fixes the state that all others see. */
	if ((err = read_changes(d, &d->changes)))
		directory_read_end(d);
	return err;
}

void directory_read_end(struct directory *d)
{
	/* Nothing was written, so nothing can be lost; a rollback ends any transaction. */
	if (!sqlite3_get_autocommit(d->db) && run(d, QUERY_ROLLBACK) != ERR_OK)
		panic("directory: a read transaction does not end: %s", d->failure);
}

enum err directory_refresh(struct directory *d)
{
	int64_t version;
	enum err err = query_one(d, QUERY_DATA_VERSION, STR_EMPTY, &version);

	if (err)
		return err == ERR_NOT_FOUND ? directory_failed(d) : err;
	if (version == d->data_version)
		return ERR_OK;
	if ((err = read_changes(d, &d->changes)))
		return err;
	d->data_version = version;
	return ERR_OK;
}

uint64_t directory_changes(const struct directory *d)
{
	return d->changes;
}

str directory_failure(const struct directory *d)
{
	return str_from_c(d->failure);
}

const uint8_t *directory_secret(const struct directory *d)
{
	return d->secret;
}

enum err require_domain(struct directory *d, str domain)
{
	enum err err = directory_domain_find(d, domain);

	return err == ERR_NOT_FOUND ? ERR_DENIED : err;
}

/* Inside the directory: statements, transactions, and how SQLite's answers become errors. */
#ifndef AUTH_DIRECTORY_PRIV_H
#define AUTH_DIRECTORY_PRIV_H

#include "auth/address.h"
#include "auth/directory.h"

#include <sqlite3.h>

enum directory_query {
#define QUERY(name, sql) QUERY_##name,
#include "auth/directory.def"
#undef QUERY
	QUERY_COUNT
};

struct directory {
	sqlite3 *db;
	sqlite3_vfs layer; /* how it opens files; registered under this name while has_layer */
	char layer_name[32];
	bool has_layer;
	sqlite3_stmt *statements[QUERY_COUNT]; /* prepared at open */
	uint64_t changes;		       /* the counter, as last read */
	int64_t data_version;		       /* SQLite's, when it was read; -1: read it again */
	uint8_t secret[DIRECTORY_SECRET_SIZE];
	char failure[DIRECTORY_WHY_SIZE];
};

/* A statement at work: begin, bind ?1, ?2 ..., step, end. */
struct query {
	struct directory *d;
	sqlite3_stmt *s;
	bool failed; /* a parameter could not be bound */
};

struct query query_begin(struct directory *d, enum directory_query which);
void query_text(struct query *q, int at, str text); /* text must stay until query_end */
void query_number(struct query *q, int at, int64_t v);
/* ERR_OK: there is a row; ERR_NOT_FOUND: there is none (any more); ERR_TEMPORARY. */
MUST_USE enum err query_step(struct query *q);
void query_end(struct query *q);
/* A column of the row, copied to the arena; ERR_NO_MEMORY. */
MUST_USE enum err query_column(struct query *q, int column, struct arena *a, str *out);

/* Its first row's first column, with ?1 alone bound when `text` has a p. `out` may be NULL. */
MUST_USE enum err query_one(struct directory *d, enum directory_query which, str text,
			    int64_t *out);
/* Steps a statement that returns no rows, and ends it. ERR_NOT_FOUND when it changed none. */
MUST_USE enum err query_change(struct query *q);

/* BEGIN IMMEDIATE; then COMMIT if `err` is ERR_OK, else ROLLBACK. Returns what became of it. */
MUST_USE enum err write_begin(struct directory *d);
MUST_USE enum err write_end(struct directory *d, enum err err);

/* Notes SQLite's message and returns ERR_TEMPORARY. */
enum err directory_failed(struct directory *d);

/* ERR_DENIED unless the (canonical) domain is ours. */
MUST_USE enum err require_domain(struct directory *d, str domain);

#endif

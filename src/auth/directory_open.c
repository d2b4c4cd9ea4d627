/* Opening the directory: what the file is, its schema, its settings.
 *
 * SQLite with a write-ahead log, so that readers never wait for a writer, and synchronous=FULL, so
 * that an account that was reported as made is there after a power cut. What the file is, it says
 * itself: the header's application_id is Posthorn's and user_version is the version of the schema.
 * They are looked at before anything is changed; a file of another program, or of a newer Posthorn,
 * is refused untouched.
 *
 * A schema is made or raised in one transaction with its version, so a crash leaves the old one or
 * the new one. Two processes that create the same file at once are kept apart by SQLite's write
 * lock; the second finds the first one's work.
 */
#include "auth/directory_priv.h"

#include "base/mutant.h"
#include "base/os.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

enum { APPLICATION_ID = 0x506f7374 /* "Post" */, SCHEMA_VERSION = 1 };

#define BUMP(table, event)                                             \
	"CREATE TRIGGER " table "_" event " AFTER " event " ON " table \
	" BEGIN UPDATE state SET changes = changes + 1; END;"
#define BUMPS(table) BUMP(table, "INSERT") BUMP(table, "UPDATE") BUMP(table, "DELETE")

/* schema_steps[n] makes version n + 1 of version n; it is run in the transaction that raises
 * user_version. */
static const char *const schema_steps[SCHEMA_VERSION] = {
	/* `domain` repeats what is behind the '@' so that a domain in use cannot go, and is found
	 * by index. */
	"CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), changes INTEGER NOT NULL,"
	" secret BLOB NOT NULL)"
	" STRICT;"
	"CREATE TABLE domains (name TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE accounts (id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL UNIQUE,"
	" domain TEXT NOT NULL REFERENCES domains (name), hash TEXT NOT NULL, scram TEXT NOT NULL"
	" DEFAULT '',"
	" quota INTEGER NOT NULL DEFAULT 0 CHECK (quota >= 0),"
	" enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)), created INTEGER NOT NULL)"
	" STRICT;"
	"CREATE INDEX accounts_domain ON accounts (domain, address);"
	"CREATE INDEX accounts_no_scram ON accounts (id) WHERE enabled = 1 AND scram = '';"
	"CREATE TABLE aliases (address TEXT NOT NULL, domain TEXT NOT NULL REFERENCES domains"
	" (name),"
	" target TEXT NOT NULL, PRIMARY KEY (address, target)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX aliases_domain ON aliases (domain, address, target);" BUMPS("domains")
		BUMPS("accounts") BUMPS("aliases"),
};

static const char *const query_sql[QUERY_COUNT] = {
#define QUERY(name, sql) [QUERY_##name] = sql,
#include "auth/directory.def"
#undef QUERY
};

/* What is known of a file before it is ours. */
struct identity {
	int64_t application, version, tables;
};

static enum err fail(struct directory *d, enum err err, char *why, const char *path,
		     const char *what)
{
	snprintf(why, DIRECTORY_WHY_SIZE, "%s: %s", path, what ? what : sqlite3_errmsg(d->db));
	return err;
}

/* SQLite opens by name, and first makes the name canonical: it looks at each folder on the way and
 * follows links itself. A name in /proc/self/fd, which leads past folders that this process may not
 * enter, would not survive that. So it goes through a copy of SQLite's own layer that takes names
 * as they are. */
static int name_as_it_is(sqlite3_vfs *vfs UNUSED, const char *name, int room, char *out)
{
	int n = snprintf(out, (size_t)room, "%s", name);

	return n < room ? SQLITE_OK : SQLITE_CANTOPEN;
}

static enum err layer_make(struct directory *d)
{
	const sqlite3_vfs *unix_layer = sqlite3_vfs_find("unix");

	if (!unix_layer)
		return ERR_UNSUPPORTED;
	snprintf(d->layer_name, sizeof(d->layer_name), "posthorn-%p", (void *)d);
	d->layer = *unix_layer;
	d->layer.pNext = NULL;
	d->layer.zName = d->layer_name;
	d->layer.xFullPathname = name_as_it_is;
	d->has_layer = sqlite3_vfs_register(&d->layer, 0) == SQLITE_OK;
	return d->has_layer ? ERR_OK : ERR_NO_MEMORY;
}

static int number(struct directory *d, const char *sql, int64_t *out)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(d->db, sql, -1, &s, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		*out = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int identify(struct directory *d, struct identity *id)
{
	int rc = number(d, "PRAGMA application_id", &id->application);

	if (rc == SQLITE_OK)
		rc = number(d, "PRAGMA user_version", &id->version);
	if (rc == SQLITE_OK)
		rc = number(d, "SELECT count(*) FROM sqlite_schema", &id->tables);
	return rc;
}

static bool is_blank(const struct identity *id)
{
	return id->application == 0 && id->version == 0 && id->tables == 0;
}

/* Refuses what is not ours; changes nothing. */
static enum err check_identity(struct directory *d, bool create, const char *path, char *why,
			       struct identity *id)
{
	int rc = identify(d, id);

	if (rc == SQLITE_NOTADB)
		return fail(d, ERR_CONFIG, why, path, "this is not an SQLite file");
	if (rc != SQLITE_OK)
		return fail(d, ERR_TEMPORARY, why, path, NULL);
	if (is_blank(id))
		return create ? ERR_OK : fail(d, ERR_NOT_FOUND, why, path, "this file is empty");
	if (id->application != APPLICATION_ID || id->version < 1)
		return fail(d, ERR_CONFIG, why, path,
			    "this is another program's database, not a directory of Posthorn");
	if (id->version > SCHEMA_VERSION)
		return fail(d, ERR_CONFIG, why, path,
			    "this directory was made by a newer Posthorn");
	return ERR_OK;
}

static int insert_state(struct directory *d, const uint8_t secret[DIRECTORY_SECRET_SIZE])
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(
		d->db, "INSERT INTO state (one, changes, secret) VALUES (1, 1, ?1)", -1, &s, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_bind_blob(s, 1, secret, DIRECTORY_SECRET_SIZE, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	sqlite3_finalize(s);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int run_steps(struct directory *d, const struct identity *id, const uint8_t *secret)
{
	char marks[96];
	int rc = SQLITE_OK;

	for (int64_t v = id->version; v < SCHEMA_VERSION && rc == SQLITE_OK; v++) {
		rc = sqlite3_exec(d->db, schema_steps[v], NULL, NULL, NULL);
		if (rc == SQLITE_OK && v == 0)
			rc = insert_state(d, secret);
	}
	snprintf(marks, sizeof(marks), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		 APPLICATION_ID, SCHEMA_VERSION);
	return rc == SQLITE_OK ? sqlite3_exec(d->db, marks, NULL, NULL, NULL) : rc;
}

/* Makes or raises the schema. Somebody else may have done so since the first look. */
static enum err bring_up_to_date(struct directory *d, const struct directory_options *options,
				 const char *path, char *why)
{
	struct identity id;
	enum err err;

	if (sqlite3_exec(d->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return fail(d, ERR_TEMPORARY, why, path, NULL);
	err = check_identity(d, options->create, path, why, &id);
	if (!err && id.version < SCHEMA_VERSION && run_steps(d, &id, options->secret) != SQLITE_OK)
		err = fail(d, ERR_TEMPORARY, why, path, NULL);
	if (!err && sqlite3_exec(d->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		err = fail(d, ERR_TEMPORARY, why, path, NULL);
	if (err)
		sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
	return err;
}

static enum err read_secret(struct directory *d, const char *path, char *why)
{
	sqlite3_stmt *s = NULL;
	bool good =
		sqlite3_prepare_v2(d->db, "SELECT secret FROM state", -1, &s, NULL) == SQLITE_OK &&
		sqlite3_step(s) == SQLITE_ROW;
	bool whole = good && sqlite3_column_bytes(s, 0) == DIRECTORY_SECRET_SIZE;

	if (whole)
		memcpy(d->secret, sqlite3_column_blob(s, 0), DIRECTORY_SECRET_SIZE);
	sqlite3_finalize(s);
	if (!good)
		return fail(d, ERR_TEMPORARY, why, path, NULL);
	return whole ? ERR_OK : fail(d, ERR_CONFIG, why, path, "the directory's secret is damaged");
}

static enum err prepare(struct directory *d, const char *path, char *why)
{
	enum err err = read_secret(d, path, why);

	if (err)
		return err;
	for (size_t i = 0; i < QUERY_COUNT; i++)
		if (sqlite3_prepare_v3(d->db, query_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &d->statements[i], NULL) != SQLITE_OK)
			return fail(d, ERR_TEMPORARY, why, path, NULL);
	return directory_refresh(d) ? fail(d, ERR_TEMPORARY, why, path, NULL) : ERR_OK;
}

static enum err open_file(struct directory *d, const char *path,
			  const struct directory_options *options, char *why)
{
	struct identity id;
	enum err err;

	/* SQLite would create it by the umask alone, readable for others. Only a file that was not
	 * there is made: to open and close one that this process has open elsewhere would release
	 * SQLite's locks on it. */
	if (options->create) {
		int fd = -1;

		err = os_open(-1, path, OS_READ | OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &fd);
		os_close(fd);
		if (err && err != ERR_EXISTS)
			return fail(d, ERR_TEMPORARY, why, path, err_text(err));
	}
	if ((err = layer_make(d)))
		return fail(d, ERR_TEMPORARY, why, path, err_text(err));
	if (sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
			    d->layer_name) != SQLITE_OK)
		return fail(d,
			    sqlite3_errcode(d->db) == SQLITE_CANTOPEN ? ERR_NOT_FOUND
								      : ERR_TEMPORARY,
			    why, path, NULL);
	sqlite3_busy_timeout(d->db, DIRECTORY_BUSY_MS);
	sqlite3_db_config(d->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(d->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	if ((err = check_identity(d, options->create, path, why, &id)))
		return err;
	if (sqlite3_exec(d->db,
			 "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA "
			 "foreign_keys = ON",
			 NULL, NULL, NULL) != SQLITE_OK)
		return fail(d, ERR_TEMPORARY, why, path, NULL);
	if (MUTANT(directory_not_synced) &&
	    sqlite3_exec(d->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL) != SQLITE_OK)
		return fail(d, ERR_TEMPORARY, why, path, NULL);
	if (id.version < SCHEMA_VERSION && (err = bring_up_to_date(d, options, path, why)))
		return err;
	return prepare(d, path, why);
}

enum err directory_open(const char *path, const struct directory_options *options,
			struct directory **out, char why[DIRECTORY_WHY_SIZE])
{
	struct directory *d = calloc(1, sizeof(*d));
	enum err err;

	*out = NULL;
	if (!d) {
		snprintf(why, DIRECTORY_WHY_SIZE, "%s: no memory", path);
		return ERR_TEMPORARY;
	}
	d->data_version = -1;
	if ((err = open_file(d, path, options, why))) {
		directory_close(d);
		return err;
	}
	*out = d;
	return ERR_OK;
}

void directory_close(struct directory *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < QUERY_COUNT; i++)
		sqlite3_finalize(d->statements[i]);
	sqlite3_close(d->db);
	if (d->has_layer)
		sqlite3_vfs_unregister(&d->layer);
	OPENSSL_cleanse(d, sizeof(*d));
	free(d);
}

/* The directory: opening and refusing files, every function and error, changes seen by another
 * handle. */
#include "auth/directory.h"

#include "base/os.h"
#include "base/tap.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

static const struct password_record secret = { { "{PLAIN}x", 8 }, { "", 0 } };

struct test {
	char dir[64], path[96];
	struct directory_options options;
	struct directory *d;
	struct arena *a;
	char why[DIRECTORY_WHY_SIZE];
};

static void setup(struct test *t)
{
	*t = (struct test){ .options = { .create = true, .secret = { 1, 2, 3 } } };
	snprintf(t->dir, sizeof(t->dir), "/tmp/directory_test.XXXXXX");
	if (!mkdtemp(t->dir))
		panic("mkdtemp");
	snprintf(t->path, sizeof(t->path), "%s/directory.db", t->dir);
	t->a = arena_new(4 << 20);
}

static void remove_file(struct test *t, const char *suffix)
{
	char path[128];

	snprintf(path, sizeof(path), "%s%s", t->path, suffix);
	unlink(path);
}

static void remove_files(struct test *t)
{
	remove_file(t, "");
	remove_file(t, "-wal");
	remove_file(t, "-shm");
}

static void teardown(struct test *t)
{
	directory_close(t->d);
	arena_free(t->a);
	remove_files(t);
	rmdir(t->dir);
}

static void shell(struct test *t, const char *sql)
{
	sqlite3 *db = NULL;

	OK(sqlite3_open(t->path, &db) == SQLITE_OK &&
	   sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
}

static void opening(struct test *t)
{
	struct directory *d;
	struct os_stat st;

	tap_group("opening");
	t->options.create = false;
	EQ(directory_open(t->path, &t->options, &d, t->why), ERR_NOT_FOUND);
	OK(d == NULL);
	t->options.create = true;
	EQ(directory_open(t->path, &t->options, &t->d, t->why), ERR_OK);
	EQ(os_stat(-1, t->path, &st), ERR_OK);
	EQ(st.mode & 0777, 0600);
	EQ(memcmp(directory_secret(t->d), t->options.secret, DIRECTORY_SECRET_SIZE), 0);
	directory_close(t->d);
	/* The secret is the first one's for ever. */
	t->options.secret[0] = 99;
	EQ(directory_open(t->path, &t->options, &t->d, t->why), ERR_OK);
	EQ(directory_secret(t->d)[0], 1);
	EQ(directory_open("/nonexistent/x", &t->options, &d, t->why), ERR_TEMPORARY);
	OK(str_find(str_from_c(t->why), S("/nonexistent/x")) == 0);
}

static void refused(struct test *t, const char *sql, const char *because)
{
	struct directory *d;

	remove_files(t);
	shell(t, sql);
	EQ(directory_open(t->path, &t->options, &d, t->why), ERR_CONFIG);
	OK(str_find(str_from_c(t->why), str_from_c(because)) != STR_NONE);
}

static void foreign_files(void)
{
	struct directory *d;
	struct test t;
	int fd;

	tap_group("files of others");
	setup(&t);
	refused(&t, "CREATE TABLE x (y)", "another program");
	refused(&t, "PRAGMA user_version = 1", "another program");
	refused(&t, "PRAGMA application_id = 1; CREATE TABLE x (y)", "another program");
	refused(&t,
		"PRAGMA application_id = 0x506f7374; PRAGMA user_version = 2; CREATE TABLE x (y)",
		"newer");
	/* Untouched: still no write-ahead log. */
	shell(&t, "CREATE TABLE z (y)");
	remove_files(&t);
	EQ(os_open(-1, t.path, OS_WRITE | OS_CREATE, &fd), ERR_OK);
	for (int i = 0; i < 100; i++)
		EQ(os_write_all(fd, S("this is a text and not a database at all ")), ERR_OK);
	os_close(fd);
	EQ(directory_open(t.path, &t.options, &d, t.why), ERR_CONFIG);
	OK(str_find(str_from_c(t.why), S("not an SQLite file")) != STR_NONE);
	teardown(&t);
}

static void domains(struct test *t)
{
	struct directory_names list;

	tap_group("domains");
	EQ(directory_domain_add(t->d, S("Example.TEST")), ERR_OK);
	EQ(directory_domain_add(t->d, S("example.test")), ERR_EXISTS);
	EQ(directory_domain_add(t->d, S("b\u00FCcher.test")), ERR_OK);
	EQ(directory_domain_add(t->d, S("xn--bcher-kva.test")), ERR_EXISTS);
	EQ(directory_domain_add(t->d, S("gone.test")), ERR_OK);
	EQ(directory_domain_add(t->d, S("not a domain")), ERR_SYNTAX);
	EQ(directory_domain_add(t->d, S("")), ERR_SYNTAX);
	EQ(directory_domain_list(t->d, STR_EMPTY, t->a, &list), ERR_OK);
	EQ(list.count, 3);
	STR_EQ(list.names[0], S("example.test"));
	STR_EQ(list.names[1], S("gone.test"));
	STR_EQ(list.names[2], S("xn--bcher-kva.test"));
	EQ(directory_domain_list(t->d, S("gone.test"), t->a, &list), ERR_OK);
	EQ(list.count, 1);
	EQ(directory_domain_remove(t->d, S("GONE.test")), ERR_OK);
	EQ(directory_domain_remove(t->d, S("gone.test")), ERR_NOT_FOUND);
	EQ(directory_domain_find(t->d, S("gone.test")), ERR_NOT_FOUND);
	EQ(directory_domain_find(t->d, S("example.test")), ERR_OK);
}

static void accounts(struct test *t)
{
	struct password_record other = { S("{PLAIN}y"), S("{SCRAM-SHA-256}z") };
	struct directory_account got;
	struct directory_accounts list;
	uint64_t alice = 0, bob = 0, id;
	bool all = false;

	tap_group("accounts");
	EQ(directory_account_add(t->d, S("Alice@Example.test"), &secret, 1000, 1700000000, &alice),
	   ERR_OK);
	EQ(directory_account_add(t->d, S("alice@example.test"), &secret, 0, 0, &id), ERR_EXISTS);
	EQ(directory_account_add(t->d, S("\"alice\"@example.test"), &secret, 0, 0, &id),
	   ERR_EXISTS);
	EQ(directory_account_add(t->d, S("alice@else.test"), &secret, 0, 0, &id), ERR_DENIED);
	EQ(directory_account_add(t->d, S("alice"), &secret, 0, 0, &id), ERR_SYNTAX);
	EQ(directory_account_add(t->d, S("q@example.test"), &secret, DIRECTORY_QUOTA_MAX + 1, 0,
				 &id),
	   ERR_RANGE);
	EQ(directory_account_add(t->d, S("bob@example.test"), &secret, DIRECTORY_QUOTA_MAX, 0,
				 &bob),
	   ERR_OK);
	OK(bob > alice && alice > 0);
	EQ(directory_account_find(t->d, S("ALICE@EXAMPLE.TEST"), t->a, &got), ERR_OK);
	OK(got.id == alice && got.quota == 1000 && got.enabled && got.created == 1700000000);
	STR_EQ(got.address, S("alice@example.test"));
	STR_EQ(got.hash, S("{PLAIN}x"));
	STR_EQ(got.scram, S(""));
	EQ(directory_account_find_id(t->d, bob, t->a, &got), ERR_OK);
	STR_EQ(got.address, S("bob@example.test"));
	OK(got.quota == DIRECTORY_QUOTA_MAX);
	EQ(directory_account_find_id(t->d, 999, t->a, &got), ERR_NOT_FOUND);
	EQ(directory_account_find_id(t->d, UINT64_MAX, t->a, &got), ERR_NOT_FOUND);
	EQ(directory_account_find(t->d, S("carol@example.test"), t->a, &got), ERR_NOT_FOUND);

	EQ(directory_set_password(t->d, S("alice@example.test"), &other), ERR_OK);
	EQ(directory_set_quota(t->d, S("alice@example.test"), 5), ERR_OK);
	EQ(directory_set_enabled(t->d, S("alice@example.test"), false), ERR_OK);
	EQ(directory_account_find(t->d, S("alice@example.test"), t->a, &got), ERR_OK);
	STR_EQ(got.hash, S("{PLAIN}y"));
	STR_EQ(got.scram, S("{SCRAM-SHA-256}z"));
	OK(got.quota == 5 && !got.enabled);
	EQ(directory_set_enabled(t->d, S("alice@example.test"), true), ERR_OK);

	/* bob has a hash alone; disabled, he is in nobody's way. */
	OK(!directory_all_have_scram(t->d, &all) && !all);
	EQ(directory_set_enabled(t->d, S("bob@example.test"), false), ERR_OK);
	OK(!directory_all_have_scram(t->d, &all) && all);
	EQ(directory_set_enabled(t->d, S("bob@example.test"), true), ERR_OK);
	OK(!directory_all_have_scram(t->d, &all) && !all);
	EQ(directory_set_password(t->d, S("bob@example.test"), &other), ERR_OK);
	OK(!directory_all_have_scram(t->d, &all) && all);
	EQ(directory_set_password(t->d, S("carol@example.test"), &other), ERR_NOT_FOUND);
	EQ(directory_set_quota(t->d, S("carol@example.test"), 5), ERR_NOT_FOUND);
	EQ(directory_set_quota(t->d, S("alice@example.test"), DIRECTORY_QUOTA_MAX + 1), ERR_RANGE);
	EQ(directory_set_enabled(t->d, S("carol@example.test"), true), ERR_NOT_FOUND);

	EQ(directory_account_list(t->d, STR_EMPTY, STR_EMPTY, t->a, &list), ERR_OK);
	EQ(list.count, 2);
	EQ(directory_account_list(t->d, S("Example.test"), S("alice@example.test"), t->a, &list),
	   ERR_OK);
	EQ(list.count, 1);
	EQ(directory_account_list(t->d, S("xn--bcher-kva.test"), STR_EMPTY, t->a, &list), ERR_OK);
	EQ(list.count, 0);

	/* A number is never given twice, even when the newest account goes. */
	EQ(directory_account_remove(t->d, S("bob@example.test")), ERR_OK);
	EQ(directory_account_remove(t->d, S("bob@example.test")), ERR_NOT_FOUND);
	EQ(directory_account_add(t->d, S("bob@example.test"), &secret, 0, 0, &id), ERR_OK);
	OK(id > bob);
	EQ(directory_domain_remove(t->d, S("example.test")), ERR_CONFLICT);
}

static void aliases(struct test *t)
{
	struct directory_aliases list;
	struct directory_names targets;
	uint64_t id;

	tap_group("aliases");
	EQ(directory_alias_add(t->d, S("Team@example.test"), S("Alice@example.TEST")), ERR_OK);
	EQ(directory_alias_add(t->d, S("team@example.test"), S("alice@example.test")), ERR_EXISTS);
	EQ(directory_alias_add(t->d, S("team@example.test"), S("Far@Else.test")), ERR_OK);
	EQ(directory_alias_add(t->d, S("@Example.test"), S("bob@example.test")), ERR_OK);
	EQ(directory_alias_add(t->d, S("alice@example.test"), S("bob@example.test")), ERR_EXISTS);
	EQ(directory_alias_add(t->d, S("x@else.test"), S("bob@example.test")), ERR_DENIED);
	EQ(directory_alias_add(t->d, S("x@example.test"), S("X@example.test")), ERR_CONFLICT);
	EQ(directory_alias_add(t->d, S("x@example.test"), S("nonsense")), ERR_SYNTAX);
	EQ(directory_alias_add(t->d, S("@"), S("bob@example.test")), ERR_SYNTAX);
	EQ(directory_alias_targets(t->d, S("team@example.test"), t->a, &targets), ERR_OK);
	EQ(targets.count, 2);
	STR_EQ(targets.names[0], S("Far@else.test"));
	STR_EQ(targets.names[1], S("alice@example.test"));
	EQ(directory_alias_targets(t->d, S("none@example.test"), t->a, &targets), ERR_NOT_FOUND);
	EQ(directory_account_add(t->d, S("team@example.test"), &secret, 0, 0, &id), ERR_EXISTS);

	EQ(directory_alias_list(t->d, STR_EMPTY, NULL, t->a, &list), ERR_OK);
	EQ(list.count, 3);
	STR_EQ(list.aliases[0].address, S("@example.test"));
	EQ(directory_alias_list(t->d, S("example.test"), &list.aliases[1], t->a, &list), ERR_OK);
	EQ(list.count, 1);
	STR_EQ(list.aliases[0].target, S("alice@example.test"));

	EQ(directory_alias_remove(t->d, S("team@example.test"), S("far@else.test")), ERR_NOT_FOUND);
	EQ(directory_alias_remove(t->d, S("team@example.test"), S("Far@else.test")), ERR_OK);
	EQ(directory_alias_remove(t->d, S("team@example.test"), S("ALICE@example.test")), ERR_OK);
	EQ(directory_alias_remove(t->d, S("team@example.test"), STR_EMPTY), ERR_NOT_FOUND);
	EQ(directory_alias_remove(t->d, S("@example.test"), STR_EMPTY), ERR_OK);
}

static void alias_limit(struct test *t)
{
	struct directory_names targets;
	char target[64];
	int failed = 0;

	tap_group("targets of one alias");
	for (int i = 0; i < DIRECTORY_TARGETS_MAX; i++) {
		snprintf(target, sizeof(target), "u%d@else.test", i);
		failed += directory_alias_add(t->d, S("all@example.test"), str_from_c(target)) !=
			  ERR_OK;
	}
	EQ(failed, 0);
	EQ(directory_alias_targets(t->d, S("all@example.test"), t->a, &targets), ERR_OK);
	EQ(targets.count, DIRECTORY_TARGETS_MAX);
	EQ(directory_alias_add(t->d, S("all@example.test"), S("more@else.test")), ERR_TOO_MANY);
	shell(t,
	      "INSERT INTO aliases VALUES ('all@example.test', 'example.test', 'more@else.test')");
	EQ(directory_alias_targets(t->d, S("all@example.test"), t->a, &targets), ERR_TOO_MANY);
	EQ(directory_alias_remove(t->d, S("all@example.test"), STR_EMPTY), ERR_OK);
}

static void changes(struct test *t)
{
	struct directory_account got;
	struct directory *other;
	uint64_t before;

	tap_group("changes");
	EQ(directory_open(t->path, &t->options, &other, t->why), ERR_OK);
	EQ(directory_refresh(t->d), ERR_OK);
	before = directory_changes(t->d);
	EQ(directory_refresh(t->d), ERR_OK);
	OK(directory_changes(t->d) == before);
	EQ(directory_set_quota(t->d, S("alice@example.test"), 6), ERR_OK);
	OK(directory_changes(t->d) > before); /* our own, without asking */
	before = directory_changes(t->d);
	EQ(directory_set_quota(other, S("alice@example.test"), 7), ERR_OK);
	OK(directory_changes(t->d) == before);
	EQ(directory_refresh(t->d), ERR_OK);
	OK(directory_changes(t->d) > before);
	OK(directory_changes(t->d) == directory_changes(other));
	before = directory_changes(t->d);
	shell(t, "UPDATE accounts SET quota = 8");
	EQ(directory_refresh(t->d), ERR_OK);
	OK(directory_changes(t->d) > before);

	/* A failed write changes nothing and counts nothing. */
	before = directory_changes(t->d);
	EQ(directory_domain_add(t->d, S("example.test")), ERR_EXISTS);
	EQ(directory_refresh(t->d), ERR_OK);
	OK(directory_changes(t->d) == before);

	/* One state while reading. */
	EQ(directory_read_begin(t->d), ERR_OK);
	EQ(directory_set_quota(other, S("alice@example.test"), 9), ERR_OK);
	EQ(directory_account_find(t->d, S("alice@example.test"), t->a, &got), ERR_OK);
	EQ(got.quota, 8);
	OK(directory_changes(t->d) == before);
	directory_read_end(t->d);
	EQ(directory_account_find(t->d, S("alice@example.test"), t->a, &got), ERR_OK);
	EQ(got.quota, 9);
	directory_close(other);
}

static void failures(struct test *t)
{
	struct arena *small = arena_new(64);
	struct directory_account got;
	struct directory_names names;

	tap_group("a query that fails is no answer");
	EQ(directory_account_find_key(t->d, S("alice@example.test"), small, &got), ERR_NO_MEMORY);
	shell(t, "DROP TABLE aliases; ALTER TABLE accounts RENAME TO somewhere");
	EQ(directory_account_find(t->d, S("alice@example.test"), t->a, &got), ERR_TEMPORARY);
	OK(str_find(directory_failure(t->d), S("accounts")) != STR_NONE);
	EQ(directory_alias_targets(t->d, S("team@example.test"), t->a, &names), ERR_TEMPORARY);
	EQ(directory_set_quota(t->d, S("alice@example.test"), 1), ERR_TEMPORARY);
	EQ(directory_domain_find(t->d, S("example.test")),
	   ERR_OK); /* no transaction was left open */
	EQ(directory_domain_add(t->d, S("still.test")), ERR_OK);
	arena_free(small);
}

int main(void)
{
	struct test t;

	setup(&t);
	opening(&t);
	domains(&t);
	accounts(&t);
	aliases(&t);
	alias_limit(&t);
	changes(&t);
	failures(&t);
	teardown(&t);
	foreign_files();
	return tap_done();
}

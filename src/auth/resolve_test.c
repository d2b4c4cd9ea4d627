/* The resolver: the order of look-ups, loops and limits, the memory of answers, and who may send as
 * whom. */
#include "auth/resolve.h"

#include "base/tap.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

static const struct password_record secret = { { "{PLAIN}x", 8 }, { "", 0 } };
static const uint8_t seed[RESOLVE_SEED_SIZE] = { 7 };

enum { CACHE = 8 };

struct test {
	char dir[64], path[96];
	struct directory *d;
	struct resolver *r;
	struct arena *a;
	uint64_t alice, bob, carol;
};

static uint64_t account(struct test *t, const char *address)
{
	uint64_t id = 0;

	EQ(directory_account_add(t->d, str_from_c(address), &secret, 77, 0, &id), ERR_OK);
	return id;
}

static void alias(struct test *t, const char *address, const char *target)
{
	if (directory_alias_add(t->d, str_from_c(address), str_from_c(target)) != ERR_OK)
		panic("alias %s", address);
}

static struct resolver *resolver(struct test *t, const char *delimiters, const char *postmaster)
{
	struct resolver_options options = { str_from_c(delimiters), str_from_c(postmaster), CACHE };
	struct resolver *r = NULL;

	EQ(resolver_new(t->d, &options, seed, &r), ERR_OK);
	return r;
}

static void setup(struct test *t)
{
	struct directory_options options = { .create = true };
	char why[DIRECTORY_WHY_SIZE];

	*t = (struct test){ .a = arena_new(64 << 20) };
	snprintf(t->dir, sizeof(t->dir), "/tmp/resolve_test.XXXXXX");
	if (!mkdtemp(t->dir))
		panic("mkdtemp");
	snprintf(t->path, sizeof(t->path), "%s/d.db", t->dir);
	EQ(directory_open(t->path, &options, &t->d, why), ERR_OK);
	EQ(directory_domain_add(t->d, S("example.test")), ERR_OK);
	EQ(directory_domain_add(t->d, S("all.test")), ERR_OK);
	t->alice = account(t, "alice@example.test");
	t->bob = account(t, "bob@example.test");
	t->carol = account(t, "carol+plus@example.test");
	t->r = resolver(t, "+-", "bob@example.test");
}

static void teardown(struct test *t)
{
	char path[112];

	resolver_free(t->r);
	directory_close(t->d);
	arena_free(t->a);
	unlink(t->path);
	snprintf(path, sizeof(path), "%s-wal", t->path);
	unlink(path);
	snprintf(path, sizeof(path), "%s-shm", t->path);
	unlink(path);
	rmdir(t->dir);
}

/* "0:x@far.test 1:alice@example.test/detail", sorted by the order of finding. */
static str text_of(struct test *t, const struct resolution *found)
{
	str s = STR_EMPTY;

	for (size_t i = 0; i < found->count; i++) {
		const struct resolved_recipient *r = &found->recipients[i];

		s = arena_printf(t->a, "%.*s%s%u:%.*s%s%.*s", STR_ARGS(s), i ? " " : "",
				 (unsigned)r->account, STR_ARGS(r->address), r->detail.n ? "/" : "",
				 STR_ARGS(r->detail));
	}
	return s;
}

static void gives(struct test *t, const char *address, enum resolved_by by, const char *wanted)
{
	struct resolution found;

	/* The second time it comes from memory, where it is kept. */
	for (int i = 0; i < 2; i++) {
		if (!EQ(resolve(t->r, str_from_c(address), t->a, &found), ERR_OK))
			printf("#   %s\n", address);
		EQ(found.by, by);
		STR_EQ(text_of(t, &found), str_from_c(wanted));
	}
}

static void fails(struct test *t, const char *address, enum err err)
{
	struct resolution found;

	if (!EQ(resolve(t->r, str_from_c(address), t->a, &found), err))
		printf("#   %s\n", address);
}

static void order(struct test *t)
{
	tap_group("order");
	gives(t, "Alice@EXAMPLE.test", RESOLVED_ACCOUNT, "1:alice@example.test");
	gives(t, "X@Far.test", RESOLVED_REMOTE, "0:X@far.test");
	fails(t, "nobody@example.test", ERR_NOT_FOUND);
	fails(t, "nonsense", ERR_SYNTAX);
	gives(t, "alice+News@example.test", RESOLVED_DETAIL_ACCOUNT, "1:alice@example.test/News");
	gives(t, "alice+news@example.test", RESOLVED_DETAIL_ACCOUNT, "1:alice@example.test/news");
	gives(t, "alice-a+b@example.test", RESOLVED_DETAIL_ACCOUNT, "1:alice@example.test/a+b");
	gives(t, "carol+plus@example.test", RESOLVED_ACCOUNT, "3:carol+plus@example.test");
	gives(t, "alice+@example.test", RESOLVED_DETAIL_ACCOUNT, "1:alice@example.test");
	fails(t, "+alice@example.test", ERR_NOT_FOUND);
	fails(t, "\"alice+a b\"@example.test", ERR_NOT_FOUND);

	alias(t, "team@example.test", "alice@example.test");
	alias(t, "team@example.test", "Far@else.test");
	alias(t, "all@example.test", "team@example.test");
	alias(t, "all@example.test", "bob+x@example.test");
	gives(t, "team@example.test", RESOLVED_ALIAS, "0:Far@else.test 1:alice@example.test");
	gives(t, "all@example.test", RESOLVED_ALIAS,
	      "2:bob@example.test/x 0:Far@else.test 1:alice@example.test");
	gives(t, "team+dev@example.test", RESOLVED_DETAIL_ALIAS,
	      "0:Far@else.test 1:alice@example.test/dev");

	alias(t, "@all.test", "alice@example.test");
	alias(t, "known@all.test", "bob@example.test");
	gives(t, "anything@all.test", RESOLVED_CATCH_ALL, "1:alice@example.test");
	gives(t, "known@all.test", RESOLVED_ALIAS, "2:bob@example.test");
	gives(t, "known+y@all.test", RESOLVED_DETAIL_ALIAS, "2:bob@example.test/y");
}

static void postmaster(struct test *t)
{
	struct resolver *with = t->r;

	tap_group("postmaster");
	gives(t, "Postmaster@example.test", RESOLVED_POSTMASTER, "2:bob@example.test");
	gives(t, "POSTMASTER", RESOLVED_ACCOUNT, "2:bob@example.test");
	gives(t, "postmaster@all.test", RESOLVED_CATCH_ALL, "1:alice@example.test");
	fails(t, "postmaster+x@example.test", ERR_NOT_FOUND);
	alias(t, "postmaster@example.test", "alice@example.test");
	gives(t, "postmaster@example.test", RESOLVED_ALIAS, "1:alice@example.test");
	EQ(directory_alias_remove(t->d, S("postmaster@example.test"), STR_EMPTY), ERR_OK);

	t->r = resolver(t, "", "");
	fails(t, "postmaster@example.test", ERR_NOT_FOUND);
	fails(t, "postmaster", ERR_NOT_FOUND);
	fails(t, "alice+x@example.test", ERR_NOT_FOUND);
	resolver_free(t->r);
	t->r = with;
}

static void chain(struct test *t, int from, int to)
{
	char address[64], target[64];

	for (int i = from; i < to; i++) {
		snprintf(address, sizeof(address), "c%d@example.test", i);
		snprintf(target, sizeof(target),
			 i + 1 == to ? "alice@example.test" : "c%d@example.test", i + 1);
		alias(t, address, target);
	}
}

static void loops(struct test *t)
{
	struct resolution found;

	tap_group("loops and limits");
	alias(t, "l1@example.test", "l2@example.test");
	alias(t, "l2@example.test", "l3@example.test");
	alias(t, "l3@example.test", "l1@example.test");
	fails(t, "l1@example.test", ERR_CONFIG);
	alias(t, "l2@example.test", "alice@example.test");
	gives(t, "l1@example.test", RESOLVED_ALIAS, "1:alice@example.test");
	gives(t, "l3@example.test", RESOLVED_ALIAS, "1:alice@example.test");

	/* c0 is one alias too many, c1 leads to the account over RESOLVE_DEPTH_MAX of them. */
	chain(t, 0, RESOLVE_DEPTH_MAX + 1);
	fails(t, "c0@example.test", ERR_TOO_MANY);
	gives(t, "c1@example.test", RESOLVED_ALIAS, "1:alice@example.test");

	tap_group("dead ends");
	alias(t, "half@example.test", "gone@example.test");
	fails(t, "half@example.test", ERR_NOT_FOUND);
	alias(t, "half@example.test", "alice@example.test");
	EQ(resolve(t->r, S("half@example.test"), t->a, &found), ERR_OK);
	EQ(found.count, 1);
	EQ(found.unresolved, 1);
	EQ(directory_set_enabled(t->d, S("alice@example.test"), false), ERR_OK);
	fails(t, "alice@example.test", ERR_DENIED);
	fails(t, "half@example.test", ERR_DENIED);
	gives(t, "all@example.test", RESOLVED_ALIAS, "2:bob@example.test/x 0:Far@else.test");
	EQ(directory_set_enabled(t->d, S("alice@example.test"), true), ERR_OK);
}

static void many(struct test *t)
{
	struct resolution found;
	char target[64];

	tap_group("many recipients");
	for (int i = 0; i < RESOLVE_RECIPIENTS_MAX; i++) {
		snprintf(target, sizeof(target), "u%d@far.test", i);
		alias(t, "many@example.test", target);
	}
	alias(t, "more@example.test", "many@example.test");
	alias(t, "twice@example.test", "many@example.test");
	alias(t, "twice@example.test", "u7@far.test");
	EQ(resolve(t->r, S("more@example.test"), t->a, &found), ERR_OK);
	EQ(found.count, RESOLVE_RECIPIENTS_MAX);
	EQ(resolve(t->r, S("twice@example.test"), t->a, &found), ERR_OK);
	EQ(found.count, RESOLVE_RECIPIENTS_MAX);
	alias(t, "more@example.test", "alice@example.test");
	fails(t, "more@example.test", ERR_TOO_MANY);
}

static void memory(struct test *t)
{
	struct resolver_options options = { .cache_max = 1 };
	struct arena *small = arena_new(16);
	struct resolution found;
	struct resolver *r;
	sqlite3 *db = NULL;
	char address[64];

	tap_group("memory");
	for (int i = 0; i < CACHE * 3; i++) {
		snprintf(address, sizeof(address), "alice+%d@example.test", i);
		EQ(resolve(t->r, str_from_c(address), t->a, &found), ERR_OK);
		OK(resolver_cached(t->r) <= CACHE);
	}
	EQ(resolver_cached(t->r), CACHE);
	fails(t, "nobody@example.test", ERR_NOT_FOUND);
	gives(t, "x@far.test", RESOLVED_REMOTE, "0:x@far.test");
	EQ(resolver_cached(t->r), CACHE);

	/* What another process changed is seen after a refresh. */
	gives(t, "alice@example.test", RESOLVED_ACCOUNT, "1:alice@example.test");
	OK(sqlite3_open(t->path, &db) == SQLITE_OK &&
	   sqlite3_exec(db, "UPDATE accounts SET quota = 5 WHERE id = 1", NULL, NULL, NULL) ==
		   SQLITE_OK);
	sqlite3_close(db);
	EQ(resolve(t->r, S("alice@example.test"), t->a, &found), ERR_OK);
	EQ(found.recipients[0].quota, 77);
	EQ(directory_refresh(t->d), ERR_OK);
	EQ(resolve(t->r, S("alice@example.test"), t->a, &found), ERR_OK);
	EQ(found.recipients[0].quota, 5);
	/* Our own change at once. */
	EQ(directory_account_remove(t->d, S("bob@example.test")), ERR_OK);
	fails(t, "bob@example.test", ERR_NOT_FOUND);

	EQ(resolve(t->r, S("alice@example.test"), small, &found), ERR_NO_MEMORY);
	options.postmaster = S("no address");
	EQ(resolver_new(t->d, &options, seed, &r), ERR_SYNTAX);
	arena_free(small);
}

static void sends(struct test *t, uint64_t id, const char *address, enum send_as wanted)
{
	enum send_as reason = SEND_AS_COUNT;

	EQ(may_send_as(t->r, id, str_from_c(address), &reason), ERR_OK);
	if (!EQ(reason, wanted))
		printf("#   %s\n", address);
	EQ(send_as_is_allowed(reason), wanted >= SEND_AS_OWN);
	OK(send_as_text(reason) != NULL);
}

static void senders(struct test *t)
{
	tap_group("senders");
	sends(t, t->alice, "ALICE@example.test", SEND_AS_OWN);
	sends(t, t->alice, "alice+shop@example.test", SEND_AS_DETAIL);
	sends(t, t->alice, "team@example.test", SEND_AS_ALIAS);
	sends(t, t->alice, "all@example.test", SEND_AS_ALIAS);
	sends(t, t->alice, "whoever@all.test", SEND_AS_CATCH_ALL);
	sends(t, t->alice, "known@all.test", SEND_AS_NOT_YOURS);
	sends(t, t->alice, "bob@example.test", SEND_AS_NOT_YOURS);
	sends(t, t->alice, "alice@far.test", SEND_AS_FOREIGN_DOMAIN);
	sends(t, t->alice, "nobody@example.test", SEND_AS_UNKNOWN);
	sends(t, t->alice, "nonsense", SEND_AS_NOT_AN_ADDRESS);
	sends(t, t->bob, "postmaster@example.test", SEND_AS_ALIAS);
	/* 0 is no account, though remote recipients carry it. */
	sends(t, 0, "team@example.test", SEND_AS_NOT_YOURS);
	sends(t, 0, "x@far.test", SEND_AS_NOT_YOURS);
}

static void failing_query(struct test *t)
{
	enum send_as reason;
	sqlite3 *db = NULL;

	tap_group("a query that fails is no answer");
	OK(sqlite3_open(t->path, &db) == SQLITE_OK &&
	   sqlite3_exec(db, "DROP TABLE aliases", NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
	EQ(directory_refresh(t->d), ERR_OK);
	fails(t, "team@example.test", ERR_TEMPORARY);
	EQ(may_send_as(t->r, t->alice, S("team@example.test"), &reason), ERR_TEMPORARY);
	OK(!send_as_is_allowed(reason));
	gives(t, "x@far.test", RESOLVED_REMOTE, "0:x@far.test");
}

int main(void)
{
	struct test t;

	setup(&t);
	order(&t);
	postmaster(&t);
	senders(&t);
	loops(&t);
	many(&t);
	memory(&t);
	failing_query(&t);
	teardown(&t);
	return tap_done();
}

/* `posthorn domain|user|alias` on a directory of its own. */
#include "auth/commands.h"

#include "base/os.h"
#include "base/tap.h"

#include <stdlib.h>
#include <unistd.h>

static struct directory *directory;

static uint64_t told_quota;

static enum err usage(void *arg, uint64_t account, uint64_t *used)
{
	*used = account * 1000;
	return arg ? ERR_TIMEOUT : ERR_OK;
}

static enum err tell_quota(void *arg, uint64_t account UNUSED, uint64_t quota)
{
	told_quota = quota;
	return arg ? ERR_TIMEOUT : ERR_OK;
}

static bool has_server, store_is_away;

/* Runs a command of words between blanks; the result's buffers are the caller's to free. */
static struct directory_result run(const char *text, str input, uint64_t cursor)
{
	struct directory_command c = { .directory = directory,
				       .scheme = PASSWORD_SHA512_CRYPT,
				       .make_password = directory_make_password,
				       .usage = has_server ? usage : NULL,
				       .tell_quota = has_server ? tell_quota : NULL,
				       .arg = store_is_away ? &store_is_away : NULL };
	struct arena *a = arena_new(DIRECTORY_COMMAND_ARENA);
	struct directory_result result = { .exit = 0 };
	str rest = str_from_c(text), args[16];
	size_t n = 0;

	buf_init(&result.out, DIRECTORY_COMMAND_OUT);
	buf_init(&result.err, DIRECTORY_COMMAND_ERR);
	while (rest.n > 0)
		args[n++] = str_cut(&rest, ' ');
	directory_command_run(&c, args, n, input, cursor, a, &result);
	arena_free(a);
	return result;
}

static void free_result(struct directory_result *r)
{
	buf_free(&r->out);
	buf_free(&r->err);
}

static void check(const char *text, str input, int exit_status, str out, str err)
{
	struct directory_result r = run(text, input, 0);

	tap_group(text);
	EQ(r.exit, exit_status);
	STR_EQ(buf_str(&r.out), out);
	if (str_find(buf_str(&r.err), err) == STR_NONE || (err.n == 0 && buf_len(&r.err) > 0))
		STR_EQ(buf_str(&r.err), err);
	free_result(&r);
}

static void test_commands(void)
{
	check("domain add Example.Test", STR_EMPTY, 0, S(""), S(""));
	check("domain add example.test", STR_EMPTY, 1, S(""), S("example.test exists already"));
	check("domain add not..valid", STR_EMPTY, 1, S(""), S("not..valid is not a valid name"));
	check("domain list", STR_EMPTY, 0, S("example.test\n"), S(""));
	check("user add alice@example.test", S("secret\n"), 0, S(""), S(""));
	check("user add alice@example.test", S("secret\n"), 1, S(""),
	      S("alice@example.test exists already"));
	check("user add bob@example.test", S(""), 1, S(""), S("a password has 1 to 511 bytes"));
	check("user add bob@elsewhere.test", S("x"), 1, S(""),
	      S("its domain is not in the directory"));
	check("user add bob@example.test --hash --quota 2m", S("{PLAIN}x\n"), 0, S(""), S(""));
	check("user add carol@example.test --hash", S("{NONSENSE}x"), 1, S(""),
	      S("no {SCHEME}hash"));
	check("user add carol@example.test --random --hash", STR_EMPTY, 2, S(""), S("usage:"));
	check("user quota alice@example.test 1x", STR_EMPTY, 1, S(""), S("1x is no size"));
	check("user quota alice@example.test 3", STR_EMPTY, 0, S(""), S(""));
	check("user disable alice@example.test", STR_EMPTY, 0, S(""), S(""));
	check("user list", STR_EMPTY, 0,
	      S("alice@example.test quota=3 disabled\nbob@example.test quota=2097152\n"), S(""));
	check("user enable alice@example.test", STR_EMPTY, 0, S(""), S(""));
	check("user quota alice@example.test", STR_EMPTY, 0, S("alice@example.test quota=3\n"),
	      S(""));
	check("user quota nobody@example.test", STR_EMPTY, 1, S(""),
	      S("nobody@example.test does not exist"));
	has_server = true;
	check("user quota alice@example.test", STR_EMPTY, 0,
	      S("alice@example.test quota=3 used=1000\n"), S(""));
	check("user quota alice@example.test 4k", STR_EMPTY, 0, S(""), S(""));
	EQ(told_quota, 4096);
	store_is_away = true;
	check("user quota alice@example.test", STR_EMPTY, 1, S("alice@example.test quota=4096\n"),
	      S("could not be found out"));
	check("user quota alice@example.test 5k", STR_EMPTY, 0, S(""),
	      S("the quota is set, and counts from the next"));
	has_server = store_is_away = false;
	check("user quota alice@example.test none", STR_EMPTY, 0, S(""), S(""));
	check("user list example.test", STR_EMPTY, 0,
	      S("alice@example.test\nbob@example.test quota=2097152\n"), S(""));
	check("user passwd nobody@example.test", S("x"), 1, S(""),
	      S("nobody@example.test does not exist"));
	check("alias add team@example.test alice@example.test bob@example.test", STR_EMPTY, 0,
	      S(""), S(""));
	check("alias add alice@example.test bob@example.test", STR_EMPTY, 1, S(""),
	      S("alice@example.test exists already"));
	check("alias list", STR_EMPTY, 0,
	      S("team@example.test alice@example.test\nteam@example.test bob@example.test\n"),
	      S(""));
	check("alias remove team@example.test bob@example.test", STR_EMPTY, 0, S(""), S(""));
	check("alias list example.test", STR_EMPTY, 0, S("team@example.test alice@example.test\n"),
	      S(""));
	check("domain remove example.test", STR_EMPTY, 1, S(""), S("still has accounts"));
	check("user import", S("dan@example.test {PLAIN}x 1g\n\neve@example.test nonsense\n"), 1,
	      S(""), S("eve@example.test: no {SCHEME}hash"));
	check("user remove dan@example.test", STR_EMPTY, 0, S(""), S(""));
	check("user", STR_EMPTY, 2, S(""), S("usage:"));
	check("user add", STR_EMPTY, 2, S(""), S("usage:"));
	check("user list --random", STR_EMPTY, 2, S(""), S("usage:"));
	check("user fly alice@example.test", STR_EMPTY, 2, S(""), S("usage:"));
}

static void test_generated(void)
{
	struct directory_result r = run("user passwd alice@example.test --random", STR_EMPTY, 0);
	struct arena *a = arena_new(DIRECTORY_COMMAND_ARENA);
	struct directory_account account;

	tap_group("generated");
	EQ(r.exit, 0);
	EQ(buf_len(&r.out), PASSWORD_GENERATED_SIZE + 1);
	EQ(directory_account_find(directory, S("alice@example.test"), a, &account), ERR_OK);
	EQ(password_verify(account.hash, str_trim(buf_str(&r.out))), ERR_OK);
	EQ(password_verify(account.hash, S("secret")), ERR_AUTH);
	arena_free(a);
	free_result(&r);
}

/* A list longer than one piece: every account is there once, in order. */
static void test_pages(void)
{
	struct buf records, all;
	struct directory_result r;
	uint64_t cursor = 0;
	unsigned pieces = 0, lines = 0;
	str rest;

	tap_group("pages");
	buf_init(&records, 1024 * 1024);
	buf_init(&all, 1024 * 1024);
	for (unsigned i = 0; i < 1500; i++)
		buf_printf(&records, "someone-with-a-long-name-%04u@example.test {PLAIN}x\n", i);
	r = run("user import", buf_str(&records), 0);
	EQ(r.exit, 0);
	free_result(&r);
	do {
		r = run("user list", STR_EMPTY, cursor);
		buf_add(&all, buf_str(&r.out));
		cursor = r.more ? r.cursor : 0;
		pieces++;
		free_result(&r);
	} while (cursor > 0 && pieces < 100);
	OK(pieces > 1);
	rest = buf_str(&all);
	for (str line = str_cut_line(&rest), last = STR_EMPTY; line.n > 0;
	     last = line, line = str_cut_line(&rest)) {
		if (str_cmp(last, line) >= 0)
			tap_check(0, "in order, each once", __FILE__, __LINE__);
		lines++;
	}
	EQ(lines, 1502); /* with alice and bob */
	buf_free(&records);
	buf_free(&all);
}

int main(void)
{
	char folder[] = "/tmp/posthorn-test-XXXXXX", path[64], why[DIRECTORY_WHY_SIZE];
	struct directory_options options = { .create = true };

	if (!mkdtemp(folder) || chdir(folder))
		panic("no folder for the test");
	(void)snprintf(path, sizeof(path), "%s/directory.db", folder);
	EQ(directory_open(path, &options, &directory, why), ERR_OK);
	test_commands();
	test_generated();
	test_pages();
	directory_close(directory);
	(void)unlink(path);
	(void)rmdir(folder);
	return tap_done();
}

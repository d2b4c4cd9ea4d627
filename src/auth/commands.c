/* `posthorn domain|user|alias`: a table of commands (commands.def) and a function for each.
 *
 * An error of the directory becomes a sentence in one place (`refuse`), so that the same fault has
 * the same words everywhere. Lists are paged: accounts by the id of the last one shown, which stays
 * valid while others come and go; the few domains and aliases by how many were shown.
 */
#include "auth/commands.h"

#include "auth/address.h"
#include "base/os.h"

enum input { INPUT_NONE, INPUT_PASSWORD, INPUT_RECORDS };

/* A command as it runs: its arguments without options. */
struct run {
	const struct directory_command *c;
	struct directory_result *result;
	struct arena *arena;
	const str *args;
	size_t n;
	str input;
	uint64_t cursor;
	bool random, hash;
	uint64_t quota;
};

#define COMMAND(group, verb, least, most, input, function, usage) \
	static void function(struct run *r);
#include "auth/commands.def"
#undef COMMAND

struct command_row {
	const char *group, *verb;
	size_t least, most;
	enum input input;
	void (*run)(struct run *r);
	const char *usage;
};

static const struct command_row commands[] = {
#define COMMAND(group, verb, least, most, input, function, usage) \
	{ group, verb, least, most, input, function, usage },
#include "auth/commands.def"
#undef COMMAND
};

bool directory_command_knows(str first)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (str_eq(first, str_from_c(commands[i].group)))
			return true;
	return false;
}

const char *directory_command_usage(str first)
{
	if (str_eq(first, S("domain")))
		return "posthorn domain add|remove DOMAIN\nposthorn domain list\n";
	if (str_eq(first, S("alias")))
		return "posthorn alias add ADDRESS|@DOMAIN TARGET...\nposthorn alias remove "
		       "ADDRESS|@DOMAIN [TARGET]\n"
		       "posthorn alias list [DOMAIN]\n";
	return "posthorn user add ADDRESS [--random | --hash] [--quota SIZE]\nposthorn user passwd "
	       "ADDRESS [--random | --hash]\n"
	       "posthorn user remove|enable|disable ADDRESS\nposthorn user quota ADDRESS "
	       "[SIZE|none]\n"
	       "posthorn user list [DOMAIN]\nposthorn user import\n";
}

static const struct command_row *command_find(str group, str verb)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (str_eq(group, str_from_c(commands[i].group)) &&
		    str_eq(verb, str_from_c(commands[i].verb)))
			return &commands[i];
	return NULL;
}

bool directory_command_wants_input(const str *args, size_t n)
{
	const struct command_row *row = n < 2 ? NULL : command_find(args[0], args[1]);

	if (!row || row->input == INPUT_NONE)
		return false;
	for (size_t i = 2; i < n; i++)
		if (str_eq(args[i], S("--random")))
			return false;
	return true;
}

enum err directory_make_password(void *arg UNUSED, enum password_scheme scheme, str password,
				 struct arena *a, struct password_record *out)
{
	uint8_t random[PASSWORD_RANDOM_SIZE];

	os_random(random, sizeof(random));
	return password_make(scheme, password, random, a, out);
}

/* ---- what every command does ---- */

/* The sentence for an error of the directory about `what`. */
static void refuse(struct run *r, str what, enum err err)
{
	struct buf *b = &r->result->err;

	r->result->exit = 1;
	buf_printf(b, "%.*s", STR_ARGS(str_head(what, 300)));
	switch (err) {
	case ERR_SYNTAX:
	case ERR_TOO_LONG:
		buf_add(b, S(" is not a valid name\n"));
		break;
	case ERR_DENIED:
		buf_add(b, S(": its domain is not in the directory; first: posthorn domain add "
			     "DOMAIN\n"));
		break;
	case ERR_EXISTS:
		buf_add(b, S(" exists already\n"));
		break;
	case ERR_NOT_FOUND:
		buf_add(b, S(" does not exist\n"));
		break;
	case ERR_CONFLICT:
		buf_add(b, S(" is in use, or would lead to itself\n"));
		break;
	case ERR_TOO_MANY:
		buf_printf(b, " has the greatest number of targets already (%d)\n",
			   DIRECTORY_TARGETS_MAX);
		break;
	case ERR_TEMPORARY:
		buf_printf(b, ": the directory failed: %.*s\n",
			   STR_ARGS(directory_failure(r->c->directory)));
		break;
	default:
		buf_printf(b, ": %s\n", err_text(err));
	}
}

static void finish(struct run *r, str what, enum err err)
{
	if (err)
		refuse(r, what, err);
}

static bool parse_quota(str s, uint64_t *quota)
{
	uint64_t factor = 1;

	if (str_case_eq(s, S("none"))) {
		*quota = 0;
		return true;
	}
	if (s.n > 1 && !ascii_is_digit(s.p[s.n - 1])) {
		static const char units[] = "kmgt";
		const char *unit = strchr(units, ascii_lower(s.p[s.n - 1]));

		if (!unit)
			return false;
		factor = 1ull << (10 * (unit - units + 1));
		s.n--;
	}
	return !str_to_u64(s, DIRECTORY_QUOTA_MAX / factor, quota) &&
	       !__builtin_mul_overflow(*quota, factor, quota);
}

/* A password is the first line of the input: what a terminal or `echo` sends. */
static str input_line(const struct run *r)
{
	str rest = r->input;

	return str_cut_line(&rest);
}

/* A hash from elsewhere. SCRAM's own keys are both: what PLAIN is checked against and what SCRAM
 * needs. */
static struct password_record record_of_hash(str hash)
{
	enum password_scheme scheme;
	struct password_record record = { .hash = hash };
	str rest;

	if (!password_scheme_of(hash, &scheme, &rest) && scheme == PASSWORD_SCRAM_SHA_256)
		record.scram = hash;
	return record;
}

/* The record to store: from --hash, --random or the password given. False when it was refused. */
static bool take_password(struct run *r, struct password_record *record)
{
	char generated[PASSWORD_GENERATED_SIZE];
	uint8_t random[PASSWORD_GENERATED_RANDOM];
	str password = input_line(r);
	enum err err;

	if (r->hash) {
		*record = record_of_hash(password);
		err = password_check_stored(password);
		if (err)
			buf_add(&r->result->err,
				S("the text given is no {SCHEME}hash that can be verified\n"));
	} else {
		if (r->random) {
			os_random(random, sizeof(random));
			password_generate(random, generated);
			password = str_of(generated, sizeof(generated));
		}
		err = r->c->make_password(r->c->arg, r->c->scheme, password, r->arena, record);
		if (err == ERR_SYNTAX || err == ERR_TOO_LONG)
			buf_printf(&r->result->err,
				   "a password has 1 to %d bytes of UTF-8 without control "
				   "characters\n",
				   PASSWORD_MAX);
		else if (err)
			buf_printf(&r->result->err, "the password could not be stored: %s\n",
				   err_text(err));
		else if (r->random)
			buf_printf(&r->result->out, "%.*s\n", STR_ARGS(password));
	}
	r->result->exit = err ? 1 : 0;
	return !err;
}

/* Takes the options out of the arguments. */
static bool take_options(struct run *r, const str *args, size_t n, str *plain)
{
	r->args = plain;
	for (size_t i = 2; i < n; i++) {
		if (str_eq(args[i], S("--random")))
			r->random = true;
		else if (str_eq(args[i], S("--hash")))
			r->hash = true;
		else if (str_eq(args[i], S("--quota")) && i + 1 < n &&
			 parse_quota(args[i + 1], &r->quota))
			i++;
		else if (str_starts(args[i], S("--")))
			return false;
		else
			plain[r->n++] = args[i];
	}
	return !(r->random && r->hash);
}

void directory_command_run(const struct directory_command *c, const str *args, size_t n, str input,
			   uint64_t cursor, struct arena *a, struct directory_result *result)
{
	struct run r = { .c = c, .result = result, .arena = a, .input = input, .cursor = cursor };
	const struct command_row *row = n < 2 ? NULL : command_find(args[0], args[1]);
	str *plain = arena_array(a, n + 1, sizeof(*plain));
	bool is_good = row && plain && take_options(&r, args, n, plain);

	if (!is_good || r.n < row->least || r.n > row->most ||
	    ((r.random || r.hash) && row->input != INPUT_PASSWORD) ||
	    (r.quota > 0 && row->run != user_add)) {
		result->exit = 2;
		buf_printf(&result->err, "usage:\n%s",
			   directory_command_usage(n > 0 ? args[0] : S("user")));
		return;
	}
	row->run(&r);
}

/* ---- domains ---- */

static void domain_add(struct run *r)
{
	finish(r, r->args[0], directory_domain_add(r->c->directory, r->args[0]));
}

static void domain_remove(struct run *r)
{
	enum err err = directory_domain_remove(r->c->directory, r->args[0]);

	if (err == ERR_CONFLICT) {
		r->result->exit = 1;
		buf_printf(&r->result->err, "%.*s still has accounts or aliases\n",
			   STR_ARGS(r->args[0]));
		return;
	}
	finish(r, r->args[0], err);
}

/* Is there room for one more line of a list? If not, the list goes on with `cursor`. */
static bool list_has_room(struct run *r, uint64_t cursor)
{
	enum { LINE_MOST = 2 * AUTH_ADDRESS_MAX + 64 };

	if (buf_len(&r->result->out) + LINE_MOST <= DIRECTORY_COMMAND_OUT)
		return true;
	r->result->more = true;
	r->result->cursor = cursor;
	return false;
}

static void domain_list(struct run *r)
{
	struct directory_names page;
	str after = STR_EMPTY;
	uint64_t shown = 0;
	enum err err;

	for (;;) {
		if ((err = directory_domain_list(r->c->directory, after, r->arena, &page))) {
			refuse(r, S("the list"), err);
			return;
		}
		for (size_t i = 0; i < page.count; i++) {
			if (++shown <= r->cursor)
				continue;
			if (!list_has_room(r, shown - 1))
				return;
			buf_printf(&r->result->out, "%.*s\n", STR_ARGS(page.names[i]));
		}
		if (page.count < DIRECTORY_PAGE_MAX)
			return;
		after = page.names[page.count - 1];
	}
}

/* ---- accounts ---- */

static void user_add(struct run *r)
{
	struct password_record record;
	uint64_t id;
	enum err err;

	if (!take_password(r, &record))
		return;
	err = directory_account_add(r->c->directory, r->args[0], &record, r->quota,
				    os_wall_us() / 1000000, &id);
	if (err)
		buf_clear(&r->result->out); /* a generated password that was not stored */
	finish(r, r->args[0], err);
}

static void user_remove(struct run *r)
{
	finish(r, r->args[0], directory_account_remove(r->c->directory, r->args[0]));
}

static void user_passwd(struct run *r)
{
	struct password_record record;
	enum err err;

	if (!take_password(r, &record))
		return;
	err = directory_set_password(r->c->directory, r->args[0], &record);
	if (err)
		buf_clear(&r->result->out);
	finish(r, r->args[0], err);
}

/* "ADDRESS quota=N|none used=N"; without a running server the store is closed, and what is used not
 * known. */
static void user_quota_show(struct run *r, const struct directory_account *account)
{
	uint64_t used;
	enum err err;

	buf_printf(&r->result->out, "%.*s quota=", STR_ARGS(account->address));
	if (account->quota > 0)
		buf_printf(&r->result->out, "%llu", (unsigned long long)account->quota);
	else
		buf_add(&r->result->out, S("none"));
	if (!r->c->usage) {
		buf_add(&r->result->out, S("\n"));
		return;
	}
	if ((err = r->c->usage(r->c->arg, account->id, &used))) {
		r->result->exit = 1;
		buf_add(&r->result->out, S("\n"));
		buf_printf(&r->result->err, "how much is used could not be found out: %s\n",
			   err_text(err));
		return;
	}
	buf_printf(&r->result->out, " used=%llu\n", (unsigned long long)used);
}

static void user_quota(struct run *r)
{
	struct directory_account account;
	uint64_t quota;
	enum err err;

	if (r->n > 1 && !parse_quota(r->args[1], &quota)) {
		r->result->exit = 1;
		buf_printf(&r->result->err, "%.*s is no size like 500m, 2g or none\n",
			   STR_ARGS(str_head(r->args[1], 100)));
		return;
	}
	err = r->n > 1 ? directory_set_quota(r->c->directory, r->args[0], quota) : ERR_OK;
	if (!err)
		err = directory_account_find(r->c->directory, r->args[0], r->arena, &account);
	if (err)
		refuse(r, r->args[0], err);
	else if (r->n == 1)
		user_quota_show(r, &account);
	else if (r->c->tell_quota && (err = r->c->tell_quota(r->c->arg, account.id, account.quota)))
		buf_printf(&r->result->err,
			   "the quota is set, and counts from the next login or message on: %s\n",
			   err_text(err));
}

static void user_enable(struct run *r)
{
	finish(r, r->args[0], directory_set_enabled(r->c->directory, r->args[0], true));
}

static void user_disable(struct run *r)
{
	finish(r, r->args[0], directory_set_enabled(r->c->directory, r->args[0], false));
}

static void user_list(struct run *r)
{
	str domain = r->n > 0 ? r->args[0] : STR_EMPTY, after = STR_EMPTY;
	struct directory_accounts page;
	struct directory_account last;
	uint64_t last_id = r->cursor;
	enum err err;

	if (r->cursor > 0) {
		if ((err = directory_account_find_id(r->c->directory, r->cursor, r->arena,
						     &last))) {
			refuse(r, S("the account that the list had come to"), err);
			return;
		}
		after = last.address;
	}
	do {
		if ((err = directory_account_list(r->c->directory, domain, after, r->arena,
						  &page))) {
			refuse(r, domain.n > 0 ? domain : S("the list"), err);
			return;
		}
		for (size_t i = 0; i < page.count; i++) {
			const struct directory_account *account = &page.accounts[i];

			if (!list_has_room(r, last_id))
				return;
			buf_printf(&r->result->out, "%.*s", STR_ARGS(account->address));
			if (account->quota > 0)
				buf_printf(&r->result->out, " quota=%llu",
					   (unsigned long long)account->quota);
			buf_printf(&r->result->out, "%s\n", account->enabled ? "" : " disabled");
			last_id = account->id;
			after = account->address;
		}
	} while (page.count == DIRECTORY_PAGE_MAX);
}

/* "ADDRESS {SCHEME}HASH [QUOTA]". */
static void import_line(struct run *r, str line)
{
	str address = str_cut(&line, ' ');
	str hash = str_cut(&line, ' ');
	struct password_record record = record_of_hash(hash);
	uint64_t quota = 0, id;

	if (line.n > 0 && !parse_quota(str_trim(line), &quota)) {
		r->result->exit = 1;
		buf_printf(&r->result->err, "%.*s: no size like 500m, 2g or none\n",
			   STR_ARGS(str_head(address, 300)));
		return;
	}
	if (password_check_stored(hash)) {
		r->result->exit = 1;
		buf_printf(&r->result->err, "%.*s: no {SCHEME}hash that can be verified\n",
			   STR_ARGS(str_head(address, 300)));
		return;
	}
	finish(r, address,
	       directory_account_add(r->c->directory, address, &record, quota,
				     os_wall_us() / 1000000, &id));
}

static void user_import(struct run *r)
{
	str rest = r->input;

	while (rest.n > 0) {
		str line = str_trim(str_cut_line(&rest));

		if (line.n > 0)
			import_line(r, line);
	}
}

/* ---- aliases ---- */

static void alias_add(struct run *r)
{
	for (size_t i = 1; i < r->n; i++) {
		enum err err = directory_alias_add(r->c->directory, r->args[0], r->args[i]);

		if (err == ERR_SYNTAX || err == ERR_TOO_LONG)
			refuse(r,
			       arena_printf(r->arena, "%.*s or %.*s", STR_ARGS(r->args[0]),
					    STR_ARGS(r->args[i])),
			       err);
		else
			finish(r, r->args[0], err);
	}
}

static void alias_remove(struct run *r)
{
	str target = r->n > 1 ? r->args[1] : STR_EMPTY;

	finish(r, r->args[0], directory_alias_remove(r->c->directory, r->args[0], target));
}

static void alias_list(struct run *r)
{
	str domain = r->n > 0 ? r->args[0] : STR_EMPTY;
	const struct directory_alias *after = NULL;
	struct directory_aliases page;
	uint64_t shown = 0;
	enum err err;

	do {
		if ((err = directory_alias_list(r->c->directory, domain, after, r->arena, &page))) {
			refuse(r, domain.n > 0 ? domain : S("the list"), err);
			return;
		}
		for (size_t i = 0; i < page.count; i++) {
			if (++shown <= r->cursor)
				continue;
			if (!list_has_room(r, shown - 1))
				return;
			buf_printf(&r->result->out, "%.*s %.*s\n",
				   STR_ARGS(page.aliases[i].address),
				   STR_ARGS(page.aliases[i].target));
		}
		after = page.count > 0 ? &page.aliases[page.count - 1] : NULL;
	} while (page.count == DIRECTORY_PAGE_MAX);
}

/* Commands (RFC 3501 6 and 9): tag, verb, arguments, by the table in imap.def.
 *
 * Each grammar in the table is one function here that reads the arguments into struct imap_command.
 * Parsing knows nothing of state, mailbox or account, so a fuzzer covers all of it, and a command
 * that is not allowed now is still told apart from one that makes no sense.
 */
#include "imap/command.h"

#include "store/types.h"
#include "text/date.h"

typedef enum err (*arguments_fn)(struct imap_parser *p, struct imap_command *c);

static const struct {
	const char *name;
	unsigned special;
} specials[] = {
	{ "\\Drafts", MAILBOX_DRAFTS },	  { "\\Sent", MAILBOX_SENT },
	{ "\\Junk", MAILBOX_JUNK },	  { "\\Trash", MAILBOX_TRASH },
	{ "\\Archive", MAILBOX_ARCHIVE },
};

unsigned imap_special_from_name(str name)
{
	for (size_t i = 0; i < ARRAY_LEN(specials); i++)
		if (str_case_eq(name, str_from_c(specials[i].name)))
			return specials[i].special;
	return MAILBOX_PLAIN;
}

str imap_special_name(unsigned special)
{
	for (size_t i = 0; i < ARRAY_LEN(specials); i++)
		if (specials[i].special == special)
			return str_from_c(specials[i].name);
	return STR_EMPTY;
}

static enum err arguments_nothing(struct imap_parser *p, struct imap_command *c)
{
	(void)p, (void)c;
	return ERR_OK;
}

static enum err parse_name(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	return err ? err : imap_parse_mailbox(p, &c->mailbox, &c->mailbox_is_valid);
}

static enum err arguments_mailbox(struct imap_parser *p, struct imap_command *c)
{
	return parse_name(p, c);
}

/* RFC 3501 6.3.3: a name that ends in the separator announces children; it is created without it.
 */
static void drop_trailing_separator(struct imap_command *c)
{
	if (c->mailbox.n > 1 && str_ends(c->mailbox, S("/")))
		c->mailbox.n--;
}

/* RFC 6154 5.2: "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")" */
static enum err parse_use(struct imap_parser *p, struct imap_command *c)
{
	str name;

	if (!str_case_eq(imap_parse_word(p), S("USE")) || !imap_parse_take(p, ' ') ||
	    !imap_parse_take(p, '('))
		return imap_parse_wrong(p, "Unknown CREATE parameter");
	while (!imap_parse_take(p, ')')) {
		enum err err;

		name = p->rest;
		if (!imap_parse_take(p, '\\'))
			return imap_parse_wrong(p, "Invalid special use");
		if ((err = imap_parse_atom(p, &name)))
			return err;
		name = str_of(name.p - 1, name.n + 1);
		/* One mailbox has one use here; RFC 6154 5.2 lets the server refuse combinations.
		 */
		c->special_is_unknown |= c->special != 0 || imap_special_from_name(name) == 0;
		c->special = imap_special_from_name(name);
		imap_parse_take(p, ' ');
	}
	return imap_parse_take(p, ')') ? ERR_OK : imap_parse_wrong(p, "Missing ')'");
}

static enum err arguments_create(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);
	str raw;

	if (err)
		return err;
	if ((err = imap_parse_astring(p, &raw)))
		return err;
	c->mailbox = raw;
	drop_trailing_separator(c);
	if ((err = imap_mailbox_name(c->mailbox, p->arena, &c->mailbox, &c->mailbox_is_valid)))
		return err;
	if (!str_starts(p->rest, S(" (")))
		return ERR_OK;
	p->rest = str_from(p->rest, 2);
	return parse_use(p, c);
}

static enum err arguments_two_mailboxes(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_name(p, c);

	if (!err)
		err = imap_parse_space(p);
	return err ? err : imap_parse_mailbox(p, &c->target, &c->target_is_valid);
}

static enum err arguments_atoms(struct imap_parser *p, struct imap_command *c)
{
	enum err err;

	do {
		if (c->atom_count == IMAP_ATOMS_MAX)
			return imap_parse_wrong(p, "Too many arguments");
		if ((err = imap_parse_space(p)))
			return err;
		if ((err = imap_parse_atom(p, &c->atoms[c->atom_count++])))
			return err;
	} while (!imap_parse_at_end(p));
	return ERR_OK;
}

/* RFC 2971 3.1: "ID" SP (NIL / "(" string SP nstring ... ")"). What the client says of itself is
 * read and not believed. */
static enum err arguments_id(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);
	str name, value;

	(void)c;
	if (err)
		return err;
	if (!imap_parse_take(p, '(')) {
		if (!str_case_eq(imap_parse_word(p), S("NIL")))
			return imap_parse_wrong(p, "Expected a list or NIL");
		return ERR_OK;
	}
	while (!imap_parse_take(p, ')')) {
		if ((err = imap_parse_string(p, &name)))
			return err;
		if ((err = imap_parse_space(p)))
			return err;
		if ((err = imap_parse_nstring(p, &value)))
			return err;
		imap_parse_take(p, ' ');
	}
	return ERR_OK;
}

/* RFC 4959: "AUTHENTICATE" SP auth-type [SP (base64 / "=")] */
static enum err arguments_authenticate(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	if (err)
		return err;
	if ((err = imap_parse_atom(p, &c->mechanism)))
		return err;
	if (!imap_parse_take(p, ' '))
		return ERR_OK;
	c->initial = p->rest;
	p->rest = STR_EMPTY;
	return ERR_OK;
}

static enum err arguments_login(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	if (!err)
		err = imap_parse_astring(p, &c->user);
	if (!err)
		err = imap_parse_space(p);
	return err ? err : imap_parse_astring(p, &c->password);
}

static const struct {
	const char *name;
	unsigned item;
} status_items[] = {
	{ "MESSAGES", IMAP_STATUS_MESSAGES }, { "RECENT", IMAP_STATUS_RECENT },
	{ "UIDNEXT", IMAP_STATUS_UIDNEXT },   { "UIDVALIDITY", IMAP_STATUS_UIDVALIDITY },
	{ "UNSEEN", IMAP_STATUS_UNSEEN },
};

static enum err parse_status_items(struct imap_parser *p, unsigned *items)
{
	if (!imap_parse_take(p, '('))
		return imap_parse_wrong(p, "Expected a list of STATUS items");
	do {
		str word = imap_parse_word(p);
		unsigned item = 0;

		for (size_t i = 0; i < ARRAY_LEN(status_items); i++)
			if (str_case_eq(word, str_from_c(status_items[i].name)))
				item = status_items[i].item;
		if (!item)
			return imap_parse_wrong(p, "Unknown STATUS item");
		*items |= item;
	} while (imap_parse_more(p));
	return imap_parse_take(p, ')') ? ERR_OK : imap_parse_wrong(p, "Missing ')'");
}

static enum err arguments_status(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_name(p, c);

	if (!err)
		err = imap_parse_space(p);
	return err ? err : parse_status_items(p, &c->status_items);
}

/* RFC 5258, the RETURN options of which are known: CHILDREN and SPECIAL-USE (always returned) and
 * STATUS (RFC 5819). Selection options and several patterns are not offered. */
static enum err parse_list_return(struct imap_parser *p, struct imap_command *c)
{
	enum err err;

	if (!str_case_eq(imap_parse_word(p), S("RETURN")) || !imap_parse_take(p, ' ') ||
	    !imap_parse_take(p, '('))
		return imap_parse_wrong(p, "Unknown LIST option");
	if (imap_parse_take(p, ')'))
		return ERR_OK;
	do {
		str word = imap_parse_word(p);

		if (str_case_eq(word, S("STATUS"))) {
			c->returns_status = true;
			if ((err = imap_parse_space(p)))
				return err;
			if ((err = parse_status_items(p, &c->status_items)))
				return err;
		} else if (!str_case_eq(word, S("CHILDREN")) &&
			   !str_case_eq(word, S("SPECIAL-USE"))) {
			return imap_parse_wrong(p, "Unknown LIST return option");
		}
	} while (imap_parse_more(p));
	return imap_parse_take(p, ')') ? ERR_OK : imap_parse_wrong(p, "Missing ')'");
}

static enum err arguments_list(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	if (!err)
		err = imap_parse_list_mailbox(p, &c->reference);
	if (!err)
		err = imap_parse_space(p);
	if (!err)
		err = imap_parse_list_mailbox(p, &c->pattern);
	if (err || !imap_parse_more(p))
		return err;
	return parse_list_return(p, c);
}

/* The rest stands before each message and is read with it. */
static enum err arguments_append(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_name(p, c);

	if (err)
		return err;
	if (imap_parse_at_end(p))
		return imap_parse_wrong(p, "Missing message");
	p->rest = STR_EMPTY;
	return ERR_OK;
}

static enum err parse_set_argument(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	c->has_set = true;
	return err ? err : imap_parse_set(p, &c->set);
}

/* RFC 4315 2.1: the UID form has a set, the other one has none. */
static enum err arguments_expunge(struct imap_parser *p, struct imap_command *c)
{
	return c->is_uid ? parse_set_argument(p, c) : ERR_OK;
}

static enum err arguments_search(struct imap_parser *p, struct imap_command *c)
{
	enum err err = imap_parse_space(p);

	return err ? err : imap_parse_search(p, &c->search);
}

static enum err arguments_fetch(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_set_argument(p, c);

	if (!err)
		err = imap_parse_space(p);
	return err ? err : imap_parse_fetch(p, &c->fetch);
}

static enum err arguments_store(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_set_argument(p, c);
	str word;

	if (!err)
		err = imap_parse_space(p);
	if (err)
		return err;
	if (imap_parse_take(p, '+'))
		c->mode = IMAP_FLAGS_ADD;
	else if (imap_parse_take(p, '-'))
		c->mode = IMAP_FLAGS_REMOVE;
	word = imap_parse_word(p);
	c->is_silent = str_case_eq(word, S("FLAGS.SILENT"));
	if (!c->is_silent && !str_case_eq(word, S("FLAGS")))
		return imap_parse_wrong(p, "Unknown STORE item");
	if ((err = imap_parse_space(p)))
		return err;
	return imap_parse_flags(p, true, &c->set_flags);
}

static enum err arguments_copy(struct imap_parser *p, struct imap_command *c)
{
	enum err err = parse_set_argument(p, c);

	return err ? err : parse_name(p, c);
}

static const struct {
	const char *name;
	enum imap_verb verb;
	arguments_fn arguments;
	unsigned states, flags;
} commands[] = {
#define ANYWHERE      (IMAP_BEFORE | IMAP_LOGGED_IN | IMAP_SELECTED)
#define BEFORE	      IMAP_BEFORE
#define AFTER	      (IMAP_LOGGED_IN | IMAP_SELECTED)
#define SELECTED      IMAP_SELECTED
#define UID_FORM      IMAP_UID_FORM
#define KEEPS_NUMBERS IMAP_KEEPS_NUMBERS
#define COMMAND(name, word, grammar, states, flags) \
	{ name, IMAP_VERB_##word, arguments_##grammar, states, flags },
#include "imap/imap.def"
#undef COMMAND
#undef ANYWHERE
#undef BEFORE
#undef AFTER
#undef SELECTED
#undef UID_FORM
#undef KEEPS_NUMBERS
};

static enum err parse_verb(struct imap_parser *p, struct imap_command *c, arguments_fn *arguments)
{
	c->name = imap_parse_word(p);
	if (str_case_eq(c->name, S("UID"))) {
		if (!imap_parse_take(p, ' '))
			return imap_parse_wrong(p, "Missing command after UID");
		c->is_uid = true;
		c->name = imap_parse_word(p);
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (!str_case_eq(c->name, str_from_c(commands[i].name)))
			continue;
		if (c->is_uid && !(commands[i].flags & IMAP_UID_FORM))
			break;
		c->name = str_from_c(commands[i].name);
		c->verb = commands[i].verb;
		c->states = commands[i].states;
		c->flags = commands[i].flags;
		*arguments = commands[i].arguments;
		return ERR_OK;
	}
	return imap_parse_wrong(p, "Unknown command");
}

enum err imap_command_parse(str text, struct arena *a, struct imap_command *out, const char **wrong)
{
	struct imap_parser p = { .rest = text, .arena = a };
	arguments_fn arguments = NULL;
	enum err err;

	*out = (struct imap_command){ 0 };
	*wrong = NULL;
	if (!(err = imap_parse_tag(&p, &out->tag)) && !imap_parse_take(&p, ' ')) {
		/* Without a command behind it, it is no tag that can be answered. */
		out->tag = STR_EMPTY;
		err = imap_parse_wrong(&p, "Missing command");
	}
	if (!err)
		err = parse_verb(&p, out, &arguments);
	if (!err)
		err = arguments(&p, out);
	if (!err)
		err = imap_parse_end(&p);
	*wrong = p.wrong;
	return err;
}

/* RFC 3501 9: append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP literal */
static enum err parse_part(struct imap_parser *p, struct imap_append_part *out)
{
	enum err err = imap_parse_space(p);
	struct date date;
	str text;

	if (!err && p->rest.n && p->rest.p[0] == '(') {
		if (!(err = imap_parse_flags(p, false, &out->flags)))
			err = imap_parse_space(p);
	}
	if (!err && p->rest.n && p->rest.p[0] == '"') {
		if ((err = imap_parse_string(p, &text)))
			return err;
		if (date_parse_imap(text, &date))
			return imap_parse_wrong(p, "Invalid date-time");
		out->has_date = true;
		out->seconds = date.seconds;
		out->zone = date.zone;
		err = imap_parse_space(p);
	}
	/* The literal is what the collector saw at the end of the line, and nothing else. */
	if (!err && str_rfind_char(p->rest, '{') != 0)
		return imap_parse_wrong(p, "Expected a message literal");
	return err;
}

enum err imap_parse_append_part(str text, bool is_first, struct arena *a,
				struct imap_append_part *out, const char **wrong)
{
	struct imap_parser p = { .rest = text, .arena = a };
	enum err err = ERR_OK;
	bool is_valid;
	str skipped;

	*out = (struct imap_append_part){ 0 };
	if (is_first) {
		/* tag SP "APPEND" SP mailbox */
		str_cut(&p.rest, ' ');
		str_cut(&p.rest, ' ');
		p.rest = str_trim(p.rest);
		err = imap_parse_mailbox(&p, &skipped, &is_valid);
	}
	if (!err)
		err = parse_part(&p, out);
	*wrong = p.wrong;
	return err;
}

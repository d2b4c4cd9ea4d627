/* The parser of SMTP command lines: RFC 5321 4.1, with the parameters of RFC 1870 (SIZE), 6152
 * (8BITMIME), 6531 (SMTPUTF8), 3461 (DSN), 4954 (AUTH), 3030 (BDAT), and RFC 2033 (LHLO).
 *
 * It is strict where two readings are possible (addresses, parameters, control characters), because
 * a line that we and the next server read differently is how mail goes astray. It is lenient in
 * three places where there is one reading and real clients err: white space at the end of a line
 * (RFC 5321 4.1.1 asks for that), after the colon of MAIL FROM: and RCPT TO:, and spaces in the
 * name after HELO.
 *
 * BINARYMIME is not offered: whoever accepts it must deliver binary parts by IMAP's BINARY and by
 * BDAT, and may not convert them. BODY=BINARYMIME is therefore a bad value.
 *
 * Bytes that are no SMTP at all (an HTTP request, a TLS hello on a plain port, a mail header) get a
 * fault of their own, upon which the session ends: they come from a confused client, or from a
 * browser that was made to talk to us.
 */
#include "smtp/command.h"

#include "text/utf8.h"

enum { D_NONE = 0, D_SMTP = SMTP_DIALECT_SMTP, D_LMTP = SMTP_DIALECT_LMTP, D_BOTH = 3 };
enum {
	T_NEW = SMTP_STATE_NEW,
	T_IDLE = SMTP_STATE_IDLE,
	T_MAIL = SMTP_STATE_MAIL,
	T_RCPT = SMTP_STATE_RCPT,
	T_BDAT = SMTP_STATE_BDAT,
	T_ALL = 31,
};
enum form { FORM_NONE, FORM_HOST, FORM_MAIL, FORM_RCPT, FORM_BDAT, FORM_AUTH, FORM_TEXT, FORM_ANY };

struct verb_row {
	str word;
	unsigned dialects, states;
	enum form form;
	const char *help;
};

static const struct verb_row verbs[SMTP_VERB_COUNT] = {
#define VERB(name, dialects, states, form, help) \
	[SMTP_##name] = { S(#name), dialects, states, form, help },
#include "smtp/smtp.def"
};

static const struct smtp_fault_info faults[SMTP_FAULT_COUNT] = {
#define FAULT(name, code, status, text) [SMTP_FAULT_##name] = { code, status, text },
#include "smtp/smtp.def"
};

const struct smtp_fault_info *smtp_fault_info(enum smtp_fault f)
{
	return &faults[f];
}

bool smtp_is_allowed(enum smtp_verb verb, enum smtp_state state)
{
	return verbs[verb].states & state;
}

const char *smtp_sequence_text(enum smtp_verb verb, enum smtp_state state)
{
	if (state == SMTP_STATE_NEW)
		return "Say hello first";
	if (verb == SMTP_MAIL)
		return "A transaction is in progress already";
	if (verb == SMTP_STARTTLS || verb == SMTP_AUTH)
		return "Not inside a transaction";
	if (state == SMTP_STATE_BDAT)
		return "Not between chunks; go on with BDAT, or RSET";
	return state == SMTP_STATE_IDLE ? "MAIL must come first" : "No valid recipients";
}

const char *smtp_verb_help(enum smtp_verb verb)
{
	return verbs[verb].help ? verbs[verb].help : "";
}

const char *smtp_verb_name(enum smtp_verb verb)
{
	return verbs[verb].word.p ? verbs[verb].word.p : "?";
}

bool smtp_verb_is_known(enum smtp_verb verb, enum smtp_dialect dialect)
{
	return verbs[verb].dialects & dialect;
}

bool smtp_is_xtext(str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		/* RFC 3461 4: xchar is "!" to "~" without "+" and "="; hexchar is "+" and two upper
		 * case digits. */
		if (c < '!' || c > '~' || c == '=')
			return false;
		if (c == '+') {
			if (i + 2 >= s.n || ascii_hex_value(s.p[i + 1]) < 0 ||
			    ascii_hex_value(s.p[i + 2]) < 0 || s.p[i + 1] >= 'a' ||
			    s.p[i + 2] >= 'a')
				return false;
			i += 2;
		}
	}
	return true;
}

/* RFC 3461 4.2: addr-type ";" xtext; RFC 6533 3 adds UTF-8 forms of the type "utf-8". */
static bool orcpt_is_valid(str s, bool utf8)
{
	str type = str_cut(&s, ';');

	if (type.n == 0 || s.n == 0)
		return false;
	for (size_t i = 0; i < type.n; i++)
		if (!ascii_is_alnum(type.p[i]) && type.p[i] != '-')
			return false;
	if (!str_case_eq(type, S("utf-8")))
		return smtp_is_xtext(s);
	if (!utf8_is_valid(s) || (!utf8 && !utf8_is_ascii(s)))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || s.p[i] == '=')
			return false;
	return true;
}

/* RFC 3461 4.1: NEVER alone, or some of the others. */
static bool notify_parse(str value, unsigned *notify)
{
	static const struct {
		str word;
		unsigned bit;
	} words[] = { { S("NEVER"), SMTP_NOTIFY_NEVER },
		      { S("SUCCESS"), SMTP_NOTIFY_SUCCESS },
		      { S("FAILURE"), SMTP_NOTIFY_FAILURE },
		      { S("DELAY"), SMTP_NOTIFY_DELAY } };

	if (value.n == 0 || value.p[value.n - 1] == ',')
		return false;
	for (*notify = 0; value.n;) {
		str word = str_cut(&value, ',');
		unsigned bit = 0;

		for (size_t i = 0; i < ARRAY_LEN(words); i++)
			if (str_case_eq(word, words[i].word))
				bit = words[i].bit;
		if (!bit || *notify & bit)
			return false;
		*notify |= bit;
	}
	return !(*notify & SMTP_NOTIFY_NEVER) || *notify == SMTP_NOTIFY_NEVER;
}

struct param_row {
	str name;
	bool needs_value;
	enum smtp_fault (*take)(str value, struct smtp_command *out);
};

static enum smtp_fault fault_unless(bool good)
{
	return good ? SMTP_FAULT_NONE : SMTP_FAULT_PARAMETER_VALUE;
}

/* RFC 1870 4: size-value ::= 1*20DIGIT */
static enum smtp_fault take_size(str value, struct smtp_command *out)
{
	enum err err = value.n > 20 ? ERR_SYNTAX : str_to_u64(value, UINT64_MAX, &out->mail.size);

	if (err == ERR_RANGE) { /* twenty digits may say more than 64 bits: larger than any limit
				   all the same */
		out->mail.size = UINT64_MAX;
		err = ERR_OK;
	}
	return fault_unless(!err);
}

static enum smtp_fault take_body(str value, struct smtp_command *out)
{
	out->mail.body = str_case_eq(value, S("8BITMIME")) ? SMTP_BODY_8BITMIME : SMTP_BODY_7BIT;
	return fault_unless(out->mail.body || str_case_eq(value, S("7BIT")));
}

static enum smtp_fault take_smtputf8(str value, struct smtp_command *out)
{
	(void)value;
	out->mail.smtputf8 = true;
	return SMTP_FAULT_NONE;
}

static enum smtp_fault take_ret(str value, struct smtp_command *out)
{
	out->mail.ret = str_case_eq(value, S("FULL"))	? SMTP_RET_FULL
			: str_case_eq(value, S("HDRS")) ? SMTP_RET_HDRS
							: SMTP_RET_NONE;
	return fault_unless(out->mail.ret != SMTP_RET_NONE);
}

static enum smtp_fault take_envid(str value, struct smtp_command *out)
{
	out->mail.envid = value;
	return fault_unless(value.n <= SMTP_ENVID_MAX && smtp_is_xtext(value));
}

/* RFC 4954 5: whom the client says it got this from. We trust nobody with it: it is checked and
 * dropped, as section 5 allows a server to do. */
static enum smtp_fault take_auth(str value, struct smtp_command *out)
{
	(void)out;
	return fault_unless(smtp_is_xtext(value));
}

static enum smtp_fault take_notify(str value, struct smtp_command *out)
{
	return fault_unless(notify_parse(value, &out->rcpt.notify));
}

/* Its form is checked when all parameters are known: it depends on SMTPUTF8. */
static enum smtp_fault take_orcpt(str value, struct smtp_command *out)
{
	out->rcpt.orcpt = value;
	return fault_unless(value.n <= SMTP_ORCPT_MAX);
}

static const struct param_row mail_params[] = {
	{ S("SIZE"), true, take_size },		 { S("BODY"), true, take_body },
	{ S("SMTPUTF8"), false, take_smtputf8 }, { S("RET"), true, take_ret },
	{ S("ENVID"), true, take_envid },	 { S("AUTH"), true, take_auth },
};

static const struct param_row rcpt_params[] = {
	{ S("NOTIFY"), true, take_notify },
	{ S("ORCPT"), true, take_orcpt },
};

/* RFC 5321 4.1.2: Mail-parameters = esmtp-param *(SP esmtp-param); more spaces have the same one
 * reading. */
static enum smtp_fault params_parse(str rest, const struct param_row *rows, size_t count,
				    struct smtp_command *out)
{
	unsigned seen = 0;

	while (rest.n) {
		str value = str_cut(&rest, ' '), name;
		bool has_value = str_find_char(value, '=') != STR_NONE;
		enum smtp_fault fault;
		size_t i = 0;

		if (value.n == 0)
			continue;
		name = str_cut(&value, '=');
		while (i < count && !str_case_eq(name, rows[i].name))
			i++;
		if (i == count)
			return SMTP_FAULT_PARAMETER_UNKNOWN;
		if (seen & 1u << i)
			return SMTP_FAULT_PARAMETER_TWICE;
		seen |= 1u << i;
		if (has_value != rows[i].needs_value || (has_value && value.n == 0))
			return SMTP_FAULT_PARAMETER_VALUE;
		if ((fault = rows[i].take(value, out)) != SMTP_FAULT_NONE)
			return fault;
	}
	return SMTP_FAULT_NONE;
}

/* "FROM:" or "TO:", then a path; *rest becomes the parameters. */
static enum smtp_fault path_parse(str *rest, str keyword, unsigned flags, struct arena *a,
				  struct addr_spec *path, enum smtp_fault bad)
{
	enum err err;

	if (!str_case_starts(*rest, keyword))
		return SMTP_FAULT_ARGUMENT;
	*rest = str_from(*rest, keyword.n);
	while (rest->n && rest->p[0] == ' ')
		*rest = str_from(*rest, 1);
	err = addr_parse_path(rest, flags, a, path);
	if (err)
		return err == ERR_TOO_LONG	? SMTP_FAULT_PATH_TOO_LONG
		       : err == ERR_UNSUPPORTED ? SMTP_FAULT_NEEDS_UTF8
		       : err == ERR_NO_MEMORY	? SMTP_FAULT_NO_MEMORY
						: bad;
	return rest->n == 0 || rest->p[0] == ' ' ? SMTP_FAULT_NONE : bad;
}

static enum smtp_fault parse_mail(str rest, struct arena *a, struct smtp_command *out)
{
	enum smtp_fault fault = path_parse(&rest, S("FROM:"), ADDR_ALLOW_NULL | ADDR_ALLOW_UTF8, a,
					   &out->mail.sender, SMTP_FAULT_SENDER);

	if (!fault)
		fault = params_parse(rest, mail_params, ARRAY_LEN(mail_params), out);
	/* RFC 6531 3.4: the parameter may stand behind the address that needs it. */
	if (!fault && out->mail.sender.is_utf8 && !out->mail.smtputf8)
		fault = SMTP_FAULT_NEEDS_UTF8;
	return fault;
}

static enum smtp_fault parse_rcpt(str rest, bool utf8, struct arena *a, struct smtp_command *out)
{
	unsigned flags = ADDR_ALLOW_NO_DOMAIN | (utf8 ? ADDR_ALLOW_UTF8 : 0);
	enum smtp_fault fault =
		path_parse(&rest, S("TO:"), flags, a, &out->rcpt.recipient, SMTP_FAULT_RECIPIENT);

	if (!fault)
		fault = params_parse(rest, rcpt_params, ARRAY_LEN(rcpt_params), out);
	if (!fault && out->rcpt.orcpt.n && !orcpt_is_valid(out->rcpt.orcpt, utf8))
		fault = SMTP_FAULT_PARAMETER_VALUE;
	return fault;
}

/* RFC 3030 2: chunk-size ::= 1*DIGIT, [ SP end-marker ] */
static enum smtp_fault parse_bdat(str rest, struct smtp_command *out)
{
	str size = str_cut(&rest, ' ');

	if (size.n > 20 || str_to_u64(size, INT64_MAX, &out->chunk))
		return SMTP_FAULT_ARGUMENT;
	out->is_last = str_case_eq(rest, S("LAST"));
	return out->is_last || rest.n == 0 ? SMTP_FAULT_NONE : SMTP_FAULT_ARGUMENT;
}

static enum smtp_fault parse_auth(str rest, struct smtp_command *out)
{
	out->argument = str_cut(&rest, ' ');
	out->initial = rest;
	out->has_initial = rest.n > 0;
	if (out->argument.n == 0 || str_find_char(rest, ' ') != STR_NONE)
		return SMTP_FAULT_ARGUMENT;
	return SMTP_FAULT_NONE;
}

static enum smtp_fault parse_host(str rest, struct smtp_command *out)
{
	out->argument = rest;
	return rest.n && rest.n <= SMTP_HELO_MAX && utf8_is_ascii(rest) ? SMTP_FAULT_NONE
									: SMTP_FAULT_ARGUMENT;
}

static enum smtp_fault parse_form(str rest, bool utf8, struct arena *a, struct smtp_command *out)
{
	switch (verbs[out->verb].form) {
	case FORM_NONE:
		return rest.n ? SMTP_FAULT_NO_ARGUMENT : SMTP_FAULT_NONE;
	case FORM_HOST:
		return parse_host(rest, out);
	case FORM_MAIL:
		return parse_mail(rest, a, out);
	case FORM_RCPT:
		return parse_rcpt(rest, utf8, a, out);
	case FORM_BDAT:
		return parse_bdat(rest, out);
	case FORM_AUTH:
		return parse_auth(rest, out);
	case FORM_TEXT:
		out->argument = rest;
		return rest.n ? SMTP_FAULT_NONE : SMTP_FAULT_ARGUMENT;
	case FORM_ANY:
		out->argument = rest;
		return SMTP_FAULT_NONE;
	}
	panic("form %d", (int)verbs[out->verb].form);
}

static bool has_controls(str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return true;
	return false;
}

/* Not a command that anybody who speaks SMTP would send. */
static bool is_foreign(str word)
{
	return word.n == 0 || !ascii_is_alpha(word.p[0]) || word.p[word.n - 1] == ':' ||
	       str_case_eq(word, S("GET")) || str_case_eq(word, S("POST")) ||
	       str_case_eq(word, S("CONNECT")) || str_case_eq(word, S("PUT"));
}

enum smtp_fault smtp_command_parse(str line, enum smtp_dialect dialect, bool utf8, struct arena *a,
				   struct smtp_command *out)
{
	str word;

	*out = (struct smtp_command){ .verb = SMTP_NO_VERB };
	/* RFC 5321 4.1.1: trailing white space SHOULD be tolerated. */
	while (line.n && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t'))
		line.n--;
	if (line.n == 0)
		return SMTP_FAULT_UNKNOWN;
	word = str_cut(&line, ' ');
	for (enum smtp_verb v = SMTP_NO_VERB + 1; v < SMTP_VERB_COUNT && !out->verb; v++)
		if (str_case_eq(word, verbs[v].word))
			out->verb = v;
	if (word.n + line.n > (out->verb == SMTP_AUTH ? SMTP_AUTH_LINE_MAX : SMTP_LINE_MAX))
		return SMTP_FAULT_LINE_TOO_LONG;
	if (!out->verb)
		return is_foreign(word)	    ? SMTP_FAULT_NOT_SMTP
		       : has_controls(word) ? SMTP_FAULT_BYTES
					    : SMTP_FAULT_UNKNOWN;
	if (!(verbs[out->verb].dialects & dialect))
		return verbs[out->verb].dialects ? SMTP_FAULT_UNKNOWN : SMTP_FAULT_NOT_IMPLEMENTED;
	while (line.n && line.p[0] == ' ')
		line = str_from(line, 1);
	if (has_controls(line))
		return SMTP_FAULT_BYTES;
	return parse_form(line, utf8, a, out);
}

/* Logins at relays: the lines of the file, which one counts, and what is wrong in one. */
#include "queue/relay_login.h"

#include "base/tap.h"

#include <stdlib.h>

static void test_find(void)
{
	static const char text[] = "# relays\n"
				   "[mail.example.net]:587\talice@example.net:se:cr et \r\n"
				   "\n"
				   "  # indented\n"
				   "relay.example  bob:b\n"
				   "relay.example  other:o";
	const struct relay_login *row;
	struct relay_logins *l = NULL;
	unsigned line;

	tap_group("find");
	EQ(relay_logins_parse(str_from_c(text), &l, &line), ERR_OK);
	EQ(relay_logins_count(l), 3);
	row = relay_logins_find(l, S("[MAIL.example.net]:587"), S("x"));
	if (OK(row)) {
		STR_EQ(row->user, S("alice@example.net"));
		STR_EQ(row->password, S("se:cr et"));
	}
	row = relay_logins_find(l, S("elsewhere"), S("relay.example"));
	if (OK(row))
		STR_EQ(row->user, S("bob"));
	OK(!relay_logins_find(l, S("[mail.example.net]"), S("mail.example.net")));
	OK(!relay_logins_find(l, STR_EMPTY, STR_EMPTY));
	relay_logins_free(l);
	OK(!relay_logins_find(NULL, S("a"), S("b")));
	EQ(relay_logins_count(NULL), 0);
}

static void test_wrong(void)
{
	static const struct {
		const char *text;
		unsigned line;
	} cases[] = {
		{ "a\n", 1 },	 { "ok u:p\na b\n", 2 },      { "#\n\na :p", 3 },
		{ "a u:\n", 1 }, { "ok u:p\nok2 u:p\nx", 3 },
	};
	char *long_text = calloc(1, RELAY_LOGIN_FILE_MAX + 1);
	struct relay_logins *l = NULL;
	unsigned line;

	tap_group("wrong");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		EQ(relay_logins_parse(str_from_c(cases[i].text), &l, &line), ERR_SYNTAX);
		EQ(line, cases[i].line);
	}
	EQ(relay_logins_parse(S("a u:p\0q"), &l, &line), ERR_SYNTAX);
	memset(long_text, '\n', RELAY_LOGIN_FILE_MAX + 1);
	EQ(relay_logins_parse(str_of(long_text, RELAY_LOGIN_FILE_MAX + 1), &l, &line),
	   ERR_TOO_LONG);
	EQ(relay_logins_parse(str_of(long_text, RELAY_LOGIN_FILE_MAX), &l, &line), ERR_OK);
	relay_logins_free(l);
	for (size_t n = RELAY_LOGIN_MAX - 1; n <= RELAY_LOGIN_MAX + 1; n++) {
		memset(long_text, 'p', n + 4);
		memcpy(long_text, "a u:", 4);
		l = NULL;
		EQ(relay_logins_parse(str_of(long_text, n + 4), &l, &line),
		   n > RELAY_LOGIN_MAX ? ERR_SYNTAX : ERR_OK);
		relay_logins_free(l);
	}
	EQ(relay_logins_parse(STR_EMPTY, &l, &line), ERR_OK);
	EQ(relay_logins_count(l), 0);
	relay_logins_free(l);
	free(long_text);
}

int main(void)
{
	test_find();
	test_wrong();
	return tap_done();
}

/* Any bytes as the file of smtp_sasl_password_maps: never a crash; every row that comes out has a
 * name and a password within their limits, and is found by its key. */
#include "queue/relay_login.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct relay_logins *l = NULL;
	unsigned line;
	str text = str_of(data, size), key = str_cut_line(&text);
	enum err err = relay_logins_parse(text, &l, &line);
	const struct relay_login *row;

	if (err == ERR_SYNTAX && line == 0)
		panic("an error that is in no line");
	if (err)
		return 0;
	row = relay_logins_find(l, key, S("mail.example.net"));
	if (row && (!row->user.n || row->user.n > RELAY_LOGIN_MAX || !row->password.n ||
		    row->password.n > RELAY_LOGIN_MAX))
		panic("a login that is none");
	if (row && !str_case_eq(row->key, key) && !str_case_eq(row->key, S("mail.example.net")))
		panic("another's login");
	relay_logins_free(l);
	return 0;
}

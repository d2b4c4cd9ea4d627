/* The set of granted recipients. */
#include "smtp/known.h"

#include "base/tap.h"

int main(void)
{
	struct smtp_known *k;

	EQ(smtp_known_new(2, &k), ERR_OK);
	OK(!smtp_known_has(k, S("a@x")));
	smtp_known_add(k, S("a@x"), 0);
	smtp_known_add(k, S("a@x"), 0);
	smtp_known_add(k, S("b@x"), 0);
	OK(smtp_known_has(k, S("b@x")));
	OK(smtp_known_has(k, S("a@x")));
	OK(!smtp_known_has(k, S("A@x")));
	OK(!smtp_known_has(k, S("")));
	/* b was not seen for longer. */
	smtp_known_add(k, S("c@x"), 0);
	OK(smtp_known_has(k, S("a@x")));
	OK(smtp_known_has(k, S("c@x")));
	OK(!smtp_known_has(k, S("b@x")));
	smtp_known_clear(k);
	OK(!smtp_known_has(k, S("a@x")));
	/* An answer to what was asked before. */
	smtp_known_add(k, S("a@x"), 0);
	OK(!smtp_known_has(k, S("a@x")));
	smtp_known_add(k, S("a@x"), smtp_known_clears(k));
	OK(smtp_known_has(k, S("a@x")));
	smtp_known_free(k);
	smtp_known_free(NULL);
	return tap_done();
}

/* SASLprep: the examples of RFC 4013 3 and the edges of its tables. */
#include "auth/saslprep.h"

#include "base/tap.h"

static enum err prep(str text, str *out)
{
	static char result[SASLPREP_INPUT_MAX];
	size_t n;
	enum err err = saslprep(text, result, sizeof(result), &n);

	*out = str_of(result, n);
	return err;
}

#define GIVES(text, wanted)                      \
	do {                                     \
		str got;                         \
		EQ(prep(S(text), &got), ERR_OK); \
		STR_EQ(got, S(wanted));          \
	} while (0)
#define REFUSES(text)                                \
	do {                                         \
		str got;                             \
		EQ(prep(S(text), &got), ERR_SYNTAX); \
	} while (0)

int main(void)
{
	char big[SASLPREP_INPUT_MAX + 1], out[4];
	size_t n;
	str result;

	tap_group("the examples of RFC 4013 3");
	GIVES("I\u00ADX", "IX");
	GIVES("user", "user");
	GIVES("USER", "USER");
	GIVES("\u00AA", "a");
	GIVES("\u2168", "IX");
	REFUSES("\x07");
	REFUSES("\u0627\x31");

	tap_group("spaces, emoji, directions");
	GIVES("a\u00A0b\u3000c", "a b c");
	GIVES("e\u0301", "\u00E9");
	GIVES("\U0001F511", "\U0001F511");
	GIVES("\u0627\x31\u0628", "\u0627\x31\u0628");
	REFUSES("\u0627"
		"a\u0628");
	GIVES("\u00AD", "");
	GIVES("", "");

	tap_group("prohibited");
	REFUSES("a\x7f");
	REFUSES("\xC2\x85");	     /* C.2.2 */
	REFUSES("\uE000");	     /* C.3 */
	REFUSES("\xF0\x9F\xBF\xBE"); /* U+1FFFE, C.4 */
	REFUSES("\xED\xA0\x80");     /* C.5: no UTF-8 at all */
	REFUSES("\uFFFD");	     /* C.6 */
	REFUSES("\u2FF0");	     /* C.7 */
	REFUSES("\u202E");	     /* C.8 */
	REFUSES("\U000E0041");	     /* C.9 */
	REFUSES("\xFF");

	tap_group("limits");
	memset(big, 'a', sizeof(big));
	EQ(prep(str_of(big, SASLPREP_INPUT_MAX), &result), ERR_OK);
	EQ(prep(str_of(big, SASLPREP_INPUT_MAX + 1), &result), ERR_TOO_LONG);
	EQ(saslprep(S("abcd"), out, sizeof(out), &n), ERR_OK);
	EQ(saslprep(S("abcde"), out, sizeof(out), &n), ERR_TOO_LONG);
	EQ(saslprep(S("ab\u00E9"), out, sizeof(out), &n), ERR_OK);
	EQ(saslprep(S("abc\u00E9"), out, sizeof(out), &n), ERR_TOO_LONG);
	return tap_done();
}

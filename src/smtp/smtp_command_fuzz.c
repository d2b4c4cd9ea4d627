/* Command lines: whatever is typed, the parser answers, and what it accepts keeps its own limits.
 */
#include "smtp/command.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(256 * 1024);
	struct smtp_command c;
	enum smtp_fault fault;

	if (size < 1 || !a) {
		arena_free(a);
		return 0;
	}
	fault = smtp_command_parse(str_of(data + 1, size - 1),
				   data[0] & 1 ? SMTP_DIALECT_LMTP : SMTP_DIALECT_SMTP, data[0] & 2,
				   a, &c);
	assert(smtp_fault_info(fault)->code >= 250 && smtp_fault_info(fault)->text);
	if (!fault) {
		assert(c.verb != SMTP_NO_VERB &&
		       smtp_verb_is_known(c.verb,
					  data[0] & 1 ? SMTP_DIALECT_LMTP : SMTP_DIALECT_SMTP));
		assert(c.mail.sender.local.n <= ADDR_LOCAL_MAX &&
		       c.rcpt.recipient.domain.n <= ADDR_DOMAIN_MAX);
		assert(c.verb != SMTP_RCPT || c.rcpt.recipient.local.n > 0);
		assert(!c.mail.sender.is_utf8 || c.mail.smtputf8);
		assert(!c.rcpt.recipient.is_utf8 || data[0] & 2);
		assert(c.mail.envid.n <= SMTP_ENVID_MAX && c.rcpt.orcpt.n <= SMTP_ORCPT_MAX);
	}
	arena_free(a);
	return 0;
}

/* SASL engines on arbitrary messages: the first byte is the mechanism and what is stored, the rest
 * are messages with two bytes of length each. */
#include "auth/sasl.h"

#include <assert.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static str next_message(str *rest)
{
	size_t n = rest->n >= 2 ? get_le16(rest->p) : 0;
	str message = str_sub(*rest, 2, n);

	*rest = str_from(*rest, 2 + message.n);
	return message.p ? message : S("");
}

static str stored(uint8_t choice)
{
	switch (choice % 3) {
	case 0:
		return STR_EMPTY;
	case 1:
		return S("{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
			 "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
			 "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
	default:
		return S("nonsense");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sasl_secrets secrets = { .nonce = { 1 }, .fake = { 2 } };
	str rest = str_of(data, size);
	enum sasl_next next = SASL_CHALLENGE;
	struct buf reply;
	struct sasl *s;
	enum err err;
	uint8_t choice;

	if (size == 0)
		return 0;
	choice = data[0];
	rest = str_from(rest, 1);
	s = sasl_new((enum sasl_mechanism)(choice % SASL_MECHANISMS), &secrets);
	if (!s)
		return 0;
	buf_init(&reply, 8192);
	err = sasl_start(s, choice & 64 ? STR_EMPTY : next_message(&rest), &reply, &next);
	while (!err && (next == SASL_LOOKUP || (next == SASL_CHALLENGE && rest.n))) {
		if (next == SASL_LOOKUP)
			err = sasl_stored(s, stored(choice / 4), &reply, &next);
		else
			err = sasl_input(s, next_message(&rest), &reply, &next);
		assert(next == SASL_CHALLENGE || buf_len(&reply) == 0);
	}
	if (!err && next == SASL_VERIFY)
		assert(sasl_name(s).n && sasl_password(s).n);
	/* Nobody gets through with SCRAM who does not know the password. */
	assert(err || next != SASL_DONE);
	buf_free(&reply);
	sasl_free(s);
	return 0;
}

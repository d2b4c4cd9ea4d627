/* A verdict of anything stays within what txn_verdict can carry. */
#include "filter/filter.h"

#include "text/utf8.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct filter_verdict v;
	struct filter *f;

	if (filter_new(&f))
		return 0;
	filter_judge(f, str_of(data, size), &v);
	assert(v.code == 250);
	assert(v.envelope.n <= FILTER_ENVELOPE_MAX && v.structure.n <= FILTER_STRUCTURE_MAX);
	assert(v.message_id.n <= FILTER_MESSAGE_ID_MAX && v.subject_base.n <= FILTER_SUBJECT_MAX);
	assert(utf8_is_valid(v.subject_base));
	filter_free(f);
	return 0;
}

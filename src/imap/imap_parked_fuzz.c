/* The parked record: what is read is written back as it was. */
#include "imap/parked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct imap_parked p;
	struct buf b;

	if (imap_parked_read(str_of(data, size), &p))
		return 0;
	buf_init(&b, 16384);
	imap_parked_write(&p, &b);
	if (!str_eq(buf_str(&b), str_of(data, size)))
		panic("a parked record changed");
	buf_free(&b);
	return 0;
}

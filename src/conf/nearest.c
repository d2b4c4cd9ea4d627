/* The setting whose name is most like a word that is none: for "did you mean".
 *
 * The distance is that of Damerau and Levenshtein in its restricted form: letters added, dropped,
 * changed, or two neighbours swapped, each counted once. Three rows of the usual table suffice.
 */
#include "conf/conf.h"

enum { NAME_MAX_COMPARED = 64 };

static unsigned distance(str a, str b)
{
	unsigned rows[3][NAME_MAX_COMPARED + 1];

	for (size_t j = 0; j <= b.n; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a.n; i++) {
		unsigned *now = rows[i % 3], *before = rows[(i + 2) % 3];
		const unsigned *earlier = rows[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b.n; j++) {
			unsigned cost = a.p[i - 1] != b.p[j - 1];

			now[j] = MIN(MIN(before[j] + 1, now[j - 1] + 1), before[j - 1] + cost);
			if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
				now[j] = MIN(now[j], earlier[j - 2] + 1);
		}
	}
	return rows[a.n % 3][b.n];
}

const char *conf_nearest(str name)
{
	const char *best = NULL;
	unsigned least;

	if (name.n == 0 || name.n > NAME_MAX_COMPARED)
		return NULL;
	least = (unsigned)name.n / 3 + 2; /* further away it is another word */
	for (enum conf_id id = 0; id < CONF_COUNT; id++) {
		str known = str_from_c(conf_info(id)->name);
		unsigned d = known.n > NAME_MAX_COMPARED ? least : distance(name, known);

		if (d < least) {
			least = d;
			best = conf_info(id)->name;
		}
	}
	return best;
}

/* The check of a disk that no server uses; for sim_do. */
#ifndef SIM_CHECK_DISK_H
#define SIM_CHECK_DISK_H

#include "sim/sim.h"
#include "sim/world.h"

#define CHECK_STORE SIM_STORE_DIR

int check_disk_main(void *world);

/* For those below. */
struct fsck {
	struct world *world;
	struct chance chance;
	bool is_done;	  /* it ran to its end, and (spoil) had something to spoil */
	bool needs_index; /* what was spoilt is in the index alone */
};
int fsck_look_main(void *fsck);	  /* nothing is damaged */
int fsck_repair_main(void *fsck); /* nothing is lost, and nothing is damaged afterwards */
int fsck_spoil_main(void *fsck);  /* of something of which nothing is lost by it */

#endif

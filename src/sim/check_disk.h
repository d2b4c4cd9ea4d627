/* The check of a disk that no server uses; for sim_do. */
#ifndef SIM_CHECK_DISK_H
#define SIM_CHECK_DISK_H

#include "sim/sim.h"
#include "sim/world.h"

#define CHECK_STORE SIM_STORE_DIR

int check_disk_main(void *world);

#endif

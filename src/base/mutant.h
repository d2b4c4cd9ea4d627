/* Mutants: faults on purpose, which prove that the simulator's checks can fail.
 *
 * MUTANT(name) stands where a promise about durability is kept. It is false, and gone from the
 * code, in every build but the simulator's, where it is true in a run that was asked for that
 * mutant (posthorn-sim --mutants). Their list, with what each breaks, is sim/mutants.def. */
#ifndef BASE_MUTANT_H
#define BASE_MUTANT_H

#ifdef POSTHORN_SIM
#include <stdbool.h>

bool sim_mutant(const char *name);
#define MUTANT(name) sim_mutant(#name)
#else
#define MUTANT(name) 0
#endif

#endif

/* Which CPUs the threads of this process may use. Knows nothing of models. */
#ifndef SBIT_WORKER_AFFINITY_H
#define SBIT_WORKER_AFFINITY_H

/* Launchers bind the ranks of a small job to one core each. When threads exceed the CPUs that this
 * process may use, allows it all online ones. Call before the first parallel region: threads
 * inherit the mask. A system that refuses leaves things as they are, which is slower but right. */
void affinity_widen(int threads);

#endif

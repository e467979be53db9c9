/* What becomes of a job whose rank 1 dies ("kill"), stops answering ("hang") or refuses
 * ("refuse"): started by failure.sh, which expects a sentence, a non-zero exit code of mpirun,
 * and no hang. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

static const char *mode;

static enum status work(void *self, struct message *m, struct error *e)
{
    (void)self;
    if (m->kind != MSG_ASSIGN)
        return OK;
    if (strcmp(mode, "kill") == 0)
        raise(SIGKILL);
    if (strcmp(mode, "hang") == 0)
        raise(SIGSTOP);
    return error_set(e, ERR_IO, "model.gguf does not exist: copy it there");
}

static enum status coordinate(void *self, struct message *m, struct error *e)
{
    (void)self;
    (void)m;
    (void)e;
    return OK;
}

static bool never(void *self)
{
    (void)self;
    return false;
}

int main(int argc, char **argv)
{
    struct error e = {0};
    struct transport *t;
    struct loop *loop;
    mode = argc > 1 ? argv[1] : "";
    if (transport_mpi_open(&t, &e) != OK || loop_open(&loop, t, &e) != OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    if (t->rank == 0) {
        struct message assign = {.kind = MSG_ASSIGN};
        loop->coordinator = (struct endpoint){&e, coordinate, NULL, NULL};
        if (loop_send(loop, 1, &assign, &e) == OK)
            loop_until(loop, never, NULL, 2, &e);
        fprintf(stderr, "%s\n", e.text);
        loop_stop(loop, true);
    } else {
        loop->worker = (struct endpoint){&e, work, NULL, NULL};
        loop_serve(loop, 30, &e);
    }
    loop_close(loop);
    return e.status != OK;
}

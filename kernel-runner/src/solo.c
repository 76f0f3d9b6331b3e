/* phalanx-solo CMD: one command that does not wait for the other ranks. */
#include "phalanx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char *const rendezvous[] = {
    "RANK",          "WORLD_SIZE",         "WORLD_RANK",        "LOCAL_RANK",
    "NODE_RANK",     "LOCAL_WORLD_SIZE",   "MASTER_ADDR",       "MASTER_ADDRESS",
    "MASTER_PORT",   "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME",  "NCCL_SOCKET_IFNAME",
    "TF_CONFIG",
};

static bool is_rendezvous(const char *variable) {
    size_t size = strcspn(variable, "=");
    if (!strncmp(variable, "PET_", 4))
        return true;
    for (size_t i = 0; i < sizeof rendezvous / sizeof *rendezvous; i++)
        if (strlen(rendezvous[i]) == size && !memcmp(rendezvous[i], variable, size))
            return true;
    return false;
}

int solo_main(char **argv) {
    char **kept = environ;
    if (!argv[0]) {
        fprintf(stderr, "usage: phalanx-solo COMMAND [ARGUMENT...]\n");
        return 64;
    }
    for (char **variable = environ; *variable; variable++)
        if (!is_rendezvous(*variable))
            *kept++ = *variable;
    *kept = NULL;
    execvp(argv[0], argv);
    fprintf(stderr, "phalanx-solo: %s: %s\n", argv[0], strerror(errno));
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* phalanx-solo CMD: one command that does not wait for the other ranks. */
#include "phalanx.h"

extern char **environ;

#define RENDEZVOUS                                                                                 \
    " RANK WORLD_SIZE WORLD_RANK LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK MASTER_ADDR "               \
    "MASTER_ADDRESS MASTER_PORT TF_CONFIG GLOO_SOCKET_IFNAME TP_SOCKET_IFNAME "                    \
    "NCCL_SOCKET_IFNAME "

int solo_main(char **argv) {
    char names[] = RENDEZVOUS, **kept = environ;
    if (!argv[0]) {
        fprintf(stderr, "usage: phalanx-solo COMMAND [ARGUMENT...]\n");
        return 64;
    }
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) unsetenv(name);
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, "PET_", 4)) *kept++ = *variable;
    *kept = NULL;
    return become("phalanx-solo", argv);
}

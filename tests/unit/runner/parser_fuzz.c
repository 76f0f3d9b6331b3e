/* Throws mutated lines at the runner's two parsers; the sanitizers say what is wrong.
 * Usage: parser_fuzz SEED ROUNDS */
#include "phalanx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const commands[] = {
    "{\"op\":\"start\"}",
    "{\"op\":\"stop\",\"signal\":15,\"grace_ms\":10000}",
    "{ \"op\" : \"signal\" , \"signal\" : 64 , \"x\" : [1] }",
    "{\"grace_ms\":-1,\"op\":\"mesh\",\"t\":true,\"u\":null,\"v\":\"\\\"\"}",
    "{\"op\":\"ping\",\"signal\":999999999999}",
};
static const char *const confs[] = {
    "kernel=k1\nssh_port=2200\naddress=10.0.0.1\ninterface=eth0\npeers=main1,sub1:2201,sub2\n",
    "kernel=k1\nmaster_port=12345\nworkdir=/a b\ncommand=run\nmesh_timeout_s=60\n\nx=y\n",
    "peers=a,b,,c\nlinger_s=99999999999999999999\ngrace_s=\n=\n==\n",
};
static const char alphabet[] = "{}[]\":,\\ \n=0129-aeopstx\t\x00\xff";

static size_t mutate(char *to, size_t room, const char *from) {
    size_t size = strlen(from);
    memcpy(to, from, size);
    for (int changes = rand() % 8; changes > 0; changes--) {
        size_t at = size ? (size_t)rand() % size : 0;
        char mark = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        switch (rand() % 4) {
        case 0: /* replace */
            if (size)
                to[at] = mark;
            break;
        case 1: /* insert */
            if (size + 1 < room) {
                memmove(to + at + 1, to + at, size - at);
                to[at] = mark;
                size++;
            }
            break;
        case 2: /* cut */
            size = at;
            break;
        default: /* double */
            if (size * 2 < room) {
                memcpy(to + size, to, size);
                size *= 2;
            }
        }
    }
    return size;
}

int main(int argc, char **argv) {
    static struct conf conf;
    srand(argc > 1 ? (unsigned)atoi(argv[1]) : 1);
    long accepted = 0, rounds = argc > 2 ? atol(argv[2]) : 1000;
    for (long i = 0; i < rounds; i++) {
        char draft[4096];
        struct command command;
        size_t size = mutate(draft, sizeof draft, commands[i % 5]);
        char *exact = malloc(size ? size : 1); /* so that one byte too far is seen */
        memcpy(exact, draft, size);
        accepted += command_parse(exact, size, &command);
        free(exact);
        size = mutate(draft, sizeof draft, confs[i % 3]);
        exact = malloc(size + 1);
        memcpy(exact, draft, size);
        accepted += !conf_parse(&conf, exact, size);
        for (int p = 0; p < conf.peer_count; p++)
            accepted += strlen(conf.peers[p].name) > 253;
        free(exact);
    }
    printf("%ld\n", accepted);
    return 0;
}

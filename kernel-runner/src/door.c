/* The ssh port's door. A peer of the mesh check says "PHXPING\n" and is answered here, so that a
 * check costs no ssh server; everybody else gets one of their own. Clients that wait for the
 * server's banner say nothing, and are let in after a moment. */
#include "phalanx.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SILENCE_MS 200
#define WORD_SIZE_BYTES 8

static struct {
    int fd;
    int64_t since;
} waiting[DOOR_LIMIT];
static int count;

bool door_open(void) { return count < DOOR_LIMIT && !spawn_is_full(); }
int door_count(void) { return count; }
int door_fd(int i) { return waiting[i].fd; }

void door_accept(int listener) {
    while (door_open()) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        waiting[count].fd = fd;
        waiting[count++].since = clock_ms();
    }
}

/* Connections are in order of arrival, except that the last one takes a leaver's place. */
int64_t door_deadline(void) {
    int64_t first = -1;
    for (int i = 0; i < count; i++)
        if (first < 0 || waiting[i].since + SILENCE_MS < first)
            first = waiting[i].since + SILENCE_MS;
    return first;
}

void door_look(int i, int64_t now, bool readable) {
    bool patience = now - waiting[i].since < SILENCE_MS;
    if (!readable && patience)
        return;
    char word[WORD_SIZE_BYTES];
    int fd = waiting[i].fd;
    ssize_t got = recv(fd, word, sizeof word, MSG_PEEK | MSG_DONTWAIT);
    bool maybe_ping = got > 0 && !memcmp(word, "PHXPING\n", (size_t)got);
    if (maybe_ping && got < WORD_SIZE_BYTES && patience)
        return;
    if (maybe_ping && got == WORD_SIZE_BYTES) {
        recv(fd, word, sizeof word, MSG_DONTWAIT);
        send(fd, "PHXPONG\n", WORD_SIZE_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (got > 0 || (got < 0 && errno == EAGAIN)) {
        spawn_ssh_server(fd);
    }
    close(fd);
    waiting[i] = waiting[--count];
}

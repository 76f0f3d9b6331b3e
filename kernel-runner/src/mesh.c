/* Can this container reach every other one by name? A child process asks all peers at once, again
 * and again, and tells by a pipe whom it has reached, so that nothing here can hold up PID 1. */
#include "phalanx.h"

#include <netdb.h>

#define PAUSE_MS 100
#define ROUND_MS 1000
#define NAMES_ROOM 3072 /* what of a message the names of unreached peers may take */

int mesh_fd = -1;
static int64_t began;
static bool reached[PEER_LIMIT]; /* as the child knows it; as PID 1 knows it once it was told */

/* A connection under way, or -1. Programs ask /etc/hosts first, and the session's names must all be
 * there; to ask DNS for one that is not would block the check of all others. */
static int call(const struct peer *peer) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *to = NULL;
    char line[1024], port[8], *rest;
    FILE *hosts = fopen("/etc/hosts", "re");
    snprintf(port, sizeof port, "%d", peer->port ? peer->port : conf.ssh_port);
    while (hosts && !to && fgets(line, sizeof line, hosts)) {
        line[strcspn(line, "#\n")] = 0;
        const char *address = strtok_r(line, " \t", &rest), *name = address;
        while (name && (name = strtok_r(NULL, " \t", &rest)) && strcmp(name, peer->name)) {}
        if (name && getaddrinfo(address, port, &hints, &to)) to = NULL;
    }
    if (hosts) fclose(hosts);
    if (!to) return -1;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fd, to->ai_addr, to->ai_addrlen); /* how it went is seen when it can be written to */
    freeaddrinfo(to);
    return fd;
}

/* First the question, then the answer. */
static void advance(struct pollfd *line, bool *answered) {
    char answer[8];
    if (line->events == POLLOUT && send(line->fd, "PHXPING\n", 8, MSG_NOSIGNAL) == 8) {
        line->events = POLLIN;
        return;
    }
    *answered = line->events == POLLIN && recv(line->fd, answer, 8, 0) == 8 &&
                !memcmp(answer, "PHXPONG\n", 8);
    close(line->fd);
    line->fd = -1;
}

/* Calls everybody who was not reached before. Returns how many were not reached now either. */
static int ask_around(int64_t give_up_at) {
    static struct pollfd lines[PEER_LIMIT];
    int64_t now = clock_ms(), end = now + ROUND_MS < give_up_at ? now + ROUND_MS : give_up_at;
    int missing = 0;
    for (int i = 0; i < conf.peer_count; i++)
        lines[i] = (struct pollfd){reached[i] ? -1 : call(&conf.peers[i]), POLLOUT, 0};
    for (int open = 1; open && now < end; now = clock_ms()) {
        poll(lines, (nfds_t)conf.peer_count, (int)(end - now));
        open = 0;
        for (int i = 0; i < conf.peer_count; i++) {
            if (lines[i].fd >= 0 && lines[i].revents) advance(&lines[i], &reached[i]);
            open += lines[i].fd >= 0;
        }
    }
    for (int i = 0; i < conf.peer_count; i++) {
        if (lines[i].fd >= 0) close(lines[i].fd);
        missing += !reached[i];
    }
    return missing;
}

static void check(int report) {
    int64_t end = began + conf.mesh_timeout_s * INT64_C(1000);
    while (ask_around(end) && clock_ms() < end) poll(NULL, 0, PAUSE_MS);
    _exit(write(report, reached, sizeof reached) != sizeof reached);
}

void mesh_begin(void) {
    int fds[2] = {-1, -1};
    if (mesh_fd >= 0) return; /* one is under way: its answer is the answer */
    began = clock_ms();
    memset(reached, 0, sizeof reached);
    if (!pipe2(fds, O_CLOEXEC) && !fork()) {
        child_signals();
        check(fds[1]);
    }
    close(fds[1]);
    mesh_fd = fds[0];
    if (mesh_fd < 0) mesh_read();
}

void mesh_abandon(void) {
    close(mesh_fd);
    mesh_fd = -1;
}

/* Where there is no checker, or no more, nobody was reached. */
void mesh_read(void) {
    char names[NAMES_ROOM] = "";
    size_t size = 0;
    long long ms = clock_ms() - began;
    bool told = read(mesh_fd, reached, sizeof reached) == sizeof reached;
    mesh_abandon();
    for (int i = 0; i < conf.peer_count; i++) {
        const char *name = conf.peers[i].name;
        if (!(told && reached[i]) && size + strlen(name) + 4 < sizeof names)
            size += (size_t)sprintf(names + size, "%s\"%s\"", size ? "," : "", name);
    }
    if (size) event(KEEP, "mesh-failed", "\"peers\":[%s],\"ms\":%lld", names, ms);
    else event(KEEP, "mesh-ok", "\"ms\":%lld", ms);
}

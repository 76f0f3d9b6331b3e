/* Can this container reach every other one by name? A child process asks all peers at once and
 * tells by a pipe whom it has reached, so that nothing here can hold up PID 1. */
#include "phalanx.h"

#include <netdb.h>

#define PAUSE_MS 100
#define ROUND_MS 1000
#define NAMES_ROOM 3072 /* what of a message the names of unreached peers may take */

int mesh_fd = -1;
int64_t mesh_deadline = -1;
static pid_t checker;
static int64_t began;
static const struct conf *settings;
static bool reached[PEER_LIMIT];
static int reached_count;

/* A connection under way, or -1. Programs ask /etc/hosts first, and the session's names must all be
 * there; to ask DNS for one that is not would block the check of all others. */
static int call(const struct peer *peer, int default_port) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *to = NULL;
    char line[1024], port[8], *rest;
    FILE *hosts = fopen("/etc/hosts", "re");
    snprintf(port, sizeof port, "%d", peer->port ? peer->port : default_port);
    while (hosts && !to && fgets(line, sizeof line, hosts)) {
        line[strcspn(line, "#\n")] = 0;
        const char *address = strtok_r(line, " \t", &rest), *name = address;
        while (name && (name = strtok_r(NULL, " \t", &rest)) && strcmp(name, peer->name)) {}
        if (name && getaddrinfo(address, port, &hints, &to)) to = NULL;
    }
    if (hosts) fclose(hosts);
    if (!to) return -1;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bool failed = connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS;
    freeaddrinfo(to);
    if (failed) close(fd);
    return failed ? -1 : fd;
}

/* First the question, then the answer. */
static void advance(struct pollfd *line, uint16_t who, int report) {
    char answer[8];
    if (line->events == POLLOUT && send(line->fd, "PHXPING\n", 8, MSG_NOSIGNAL) == 8) {
        line->events = POLLIN;
        return;
    }
    if (line->events == POLLIN && recv(line->fd, answer, 8, 0) == 8 &&
        !memcmp(answer, "PHXPONG\n", 8)) {
        reached[who] = true;
        if (write(report, &who, sizeof who) != sizeof who) _exit(1);
    }
    close(line->fd);
    line->fd = -1;
}

static void check(const struct conf *conf, int report) {
    static struct pollfd lines[PEER_LIMIT];
    for (;; poll(NULL, 0, PAUSE_MS)) {
        int64_t now = clock_ms(), end = now + ROUND_MS;
        for (int i = 0; i < conf->peer_count; i++)
            lines[i] = (struct pollfd){reached[i] ? -1 : call(&conf->peers[i], conf->ssh_port),
                                       POLLOUT, 0};
        for (int open = 1; open && now < end; now = clock_ms()) {
            poll(lines, (nfds_t)conf->peer_count, (int)(end - now));
            open = 0;
            for (int i = 0; i < conf->peer_count; i++) {
                if (lines[i].fd >= 0 && lines[i].revents) advance(&lines[i], (uint16_t)i, report);
                open += lines[i].fd >= 0;
            }
        }
        for (int i = 0; i < conf->peer_count; i++)
            if (lines[i].fd >= 0) close(lines[i].fd);
    }
}

void mesh_abandon(void) {
    if (mesh_fd >= 0) close(mesh_fd);
    if (checker > 0) kill(checker, SIGKILL);
    mesh_fd = -1;
    mesh_deadline = -1;
    checker = 0;
}

void mesh_begin(const struct conf *conf) {
    int fds[2] = {-1, -1};
    if (mesh_fd >= 0) return; /* one is under way: its answer is the answer */
    settings = conf;
    began = clock_ms();
    memset(reached, 0, sizeof reached);
    reached_count = 0;
    checker = pipe2(fds, O_CLOEXEC | O_NONBLOCK) ? -1 : fork();
    if (!checker) {
        child_signals();
        check(conf, fds[1]);
    }
    close(fds[1]);
    mesh_fd = fds[0];
    mesh_deadline = began + conf->mesh_timeout_s * INT64_C(1000);
    mesh_progress(began);
}

static void report_failure(int64_t now) {
    char names[NAMES_ROOM] = "";
    size_t size = 0;
    for (int i = 0; i < settings->peer_count; i++) {
        const char *name = settings->peers[i].name;
        if (!reached[i] && size + strlen(name) + 4 < sizeof names)
            size += (size_t)sprintf(names + size, "%s\"%s\"", size ? "," : "", name);
    }
    event(KEEP, "mesh-failed", "\"peers\":[%s],\"ms\":%lld", names, (long long)(now - began));
}

void mesh_progress(int64_t now) {
    uint16_t who[256];
    ssize_t got = mesh_deadline < 0 ? -1 : read(mesh_fd, who, sizeof who);
    if (mesh_deadline < 0) return;
    for (ssize_t i = 0; i < got / (ssize_t)sizeof *who; i++) {
        reached_count += !reached[who[i]];
        reached[who[i]] = true;
    }
    bool all = reached_count == settings->peer_count;
    if (!all && got != 0 && mesh_fd >= 0 && checker > 0 && now < mesh_deadline) return;
    mesh_abandon();
    if (all) event(KEEP, "mesh-ok", "\"ms\":%lld", (long long)(now - began));
    else report_failure(now);
}

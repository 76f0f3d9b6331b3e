/* Can this container reach every other one by name? A child process asks all peers at once and
 * tells by a pipe whom it has reached, so that nothing here can hold up PID 1. */
#include "phalanx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY_MS 100
#define ATTEMPT_MS 1000
#define AT_ONCE 256
#define NAMES_ROOM 3072 /* what of a message the names of unreached peers may take */

static pid_t checker;
static int reached_fd = -1;
static int64_t began, deadline;
static const struct conf *settings;
static bool reached[PEER_LIMIT];
static int reached_count;

struct attempt {
    int fd; /* -1: none under way */
    bool asked, done;
    int64_t next, ends;
    struct sockaddr_storage address;
    socklen_t address_size;
};

static struct attempt attempts[PEER_LIMIT];

/* The address that a line of /etc/hosts gives to the name, if it does. */
static void read_host(char *line, const char *name, int port, struct attempt *attempt) {
    struct sockaddr_in *four = (struct sockaddr_in *)&attempt->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&attempt->address;
    char *rest, *address, *word;
    line[strcspn(line, "#")] = 0;
    if (!(address = strtok_r(line, " \t\r\n", &rest)))
        return;
    do {
        if (!(word = strtok_r(NULL, " \t\r\n", &rest)))
            return;
    } while (strcmp(word, name));
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        attempt->address_size = sizeof *four;
    } else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        attempt->address_size = sizeof *six;
    }
}

/* Programs ask /etc/hosts first, and the session's names must all be there. To ask DNS for one that
 * is not would block the check of all others. */
static bool find(struct attempt *attempt, const struct peer *peer, int default_port) {
    char line[1024];
    FILE *hosts = attempt->address_size ? NULL : fopen("/etc/hosts", "re");
    while (hosts && !attempt->address_size && fgets(line, sizeof line, hosts))
        read_host(line, peer->name, peer->port ? peer->port : default_port, attempt);
    if (hosts)
        fclose(hosts);
    return attempt->address_size;
}

static void give_up(struct attempt *attempt) {
    if (attempt->fd >= 0)
        close(attempt->fd);
    attempt->fd = -1;
    attempt->next = clock_ms() + RETRY_MS;
}

static bool begin(struct attempt *attempt, const struct peer *peer, int default_port) {
    if (!find(attempt, peer, default_port)) {
        give_up(attempt);
        return false;
    }
    attempt->fd = socket(attempt->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    attempt->asked = false;
    attempt->ends = clock_ms() + ATTEMPT_MS;
    if (attempt->fd >= 0 &&
        (!connect(attempt->fd, (struct sockaddr *)&attempt->address, attempt->address_size) ||
         errno == EINPROGRESS))
        return true;
    give_up(attempt);
    return false;
}

/* True once the peer has answered. */
static bool advance(struct attempt *attempt) {
    char answer[8];
    if (!attempt->asked) {
        attempt->asked = send(attempt->fd, "PHXPING\n", 8, MSG_NOSIGNAL) == 8;
        if (!attempt->asked)
            give_up(attempt);
        return false;
    }
    attempt->done = recv(attempt->fd, answer, 8, 0) == 8 && !memcmp(answer, "PHXPONG\n", 8);
    give_up(attempt);
    return attempt->done;
}

static void check_round(const struct conf *conf, int report) {
    struct pollfd polled[AT_ONCE];
    uint16_t who[AT_ONCE];
    int count = 0;
    int64_t now = clock_ms(), wake = now + ATTEMPT_MS;
    for (int i = 0; i < conf->peer_count && count < AT_ONCE; i++) {
        struct attempt *attempt = &attempts[i];
        if (attempt->fd >= 0 && now >= attempt->ends)
            give_up(attempt);
        if (attempt->fd < 0 && !attempt->done && now >= attempt->next)
            begin(attempt, &conf->peers[i], conf->ssh_port);
        if (attempt->fd >= 0) {
            who[count] = (uint16_t)i;
            polled[count++] =
                (struct pollfd){attempt->fd, attempt->asked ? POLLIN : POLLOUT, 0};
        } else if (!attempt->done && attempt->next < wake) {
            wake = attempt->next;
        }
    }
    poll(polled, (nfds_t)count, wake > now ? (int)(wake - now) : 0);
    for (int i = 0; i < count; i++)
        if (polled[i].revents && advance(&attempts[who[i]]) &&
            write(report, &who[i], sizeof *who) != sizeof *who)
            _exit(1);
}

static void check(const struct conf *conf, int report) {
    for (int i = 0; i < conf->peer_count; i++)
        attempts[i].fd = -1;
    for (;;)
        check_round(conf, report);
}

static void end_check(void) {
    close(reached_fd);
    reached_fd = -1;
    if (checker > 0)
        kill(checker, SIGKILL);
    checker = 0;
}

static void report_failure(int64_t now) {
    char names[NAMES_ROOM] = "";
    size_t size = 0;
    int more = 0;
    for (int i = 0; i < settings->peer_count; i++) {
        const char *name = settings->peers[i].name;
        if (reached[i])
            continue;
        if (size + strlen(name) + 4 > sizeof names)
            more++;
        else
            size += (size_t)sprintf(names + size, "%s\"%s\"", size ? "," : "", name);
    }
    event(KEEP, "mesh-failed", "\"peers\":[%s],\"more\":%d,\"ms\":%lld", names, more,
          (long long)(now - began));
}

void mesh_begin(const struct conf *conf) {
    int pipe_fds[2];
    if (reached_fd >= 0) /* one is under way: its answer is the answer */
        return;
    settings = conf;
    began = clock_ms();
    deadline = began + conf->mesh_timeout_s * INT64_C(1000);
    memset(reached, 0, sizeof reached);
    reached_count = 0;
    if (!conf->peer_count) {
        event(KEEP, "mesh-ok", "\"ms\":0");
        return;
    }
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK)) {
        report_failure(began);
        return;
    }
    reached_fd = pipe_fds[0];
    checker = fork();
    if (!checker) {
        child_signals();
        check(conf, pipe_fds[1]);
    }
    close(pipe_fds[1]);
}

void mesh_abandon(void) {
    if (reached_fd >= 0)
        end_check();
}

int mesh_fd(void) { return reached_fd; }
int64_t mesh_deadline(void) { return reached_fd < 0 ? -1 : deadline; }

void mesh_progress(int64_t now) {
    uint16_t who[256];
    if (reached_fd < 0)
        return;
    ssize_t got = read(reached_fd, who, sizeof who);
    for (size_t i = 0; got > 0 && i < (size_t)got / sizeof *who; i++)
        if (who[i] < PEER_LIMIT && !reached[who[i]]) {
            reached[who[i]] = true;
            reached_count++;
        }
    if (reached_count == settings->peer_count) {
        end_check();
        event(KEEP, "mesh-ok", "\"ms\":%lld", (long long)(now - began));
    } else if (got == 0 || now >= deadline) { /* the checker died, or the time is over */
        end_check();
        report_failure(now);
    }
}

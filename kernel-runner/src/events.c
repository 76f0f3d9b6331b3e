/* What happens here, told to the agent: a ring of the last events, sent again after every
 * reconnection. The agent drops what it has seen by "seq". */
#include "phalanx.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RING 512
#define BACKOFF_LOW_MS 100
#define BACKOFF_HIGH_MS 2000
#define STEADY_MS 5000 /* a connection that lasted so long was no mistake */

static char *ring[RING];
static long ring_next, sequence;
static const char *kernel_id = "";
static int agent = -1;
static int backoff_ms = BACKOFF_LOW_MS;
static int64_t retry_at, connected_at;
static char input[LINE_LIMIT];
static size_t input_size;
static bool input_skipping;

void events_open(const char *kernel) { kernel_id = kernel; }
int agent_fd(void) { return agent; }
int64_t agent_retry_at(void) { return retry_at; }

static void agent_drop(void) {
    int64_t now = clock_ms();
    close(agent);
    agent = -1;
    input_size = 0;
    input_skipping = false;
    if (now - connected_at >= STEADY_MS)
        backoff_ms = BACKOFF_LOW_MS;
    retry_at = now + backoff_ms;
    backoff_ms = backoff_ms * 2 < BACKOFF_HIGH_MS ? backoff_ms * 2 : BACKOFF_HIGH_MS;
}

/* An agent that does not read is treated as one that is gone: the ring keeps what it missed. */
static bool agent_send(const char *line, size_t size) {
    if (agent < 0)
        return false;
    if (send(agent, line, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size)
        return true;
    agent_drop();
    return false;
}

void event(enum keep keep, const char *name, const char *fields, ...) {
    char line[LINE_LIMIT];
    int size = snprintf(line, sizeof line, "{\"ev\":\"%s\",\"seq\":%ld,\"t\":%lld", name,
                        ++sequence, (long long)clock_unix_us());
    if (*fields) {
        line[size++] = ',';
        va_list args;
        va_start(args, fields);
        int more = vsnprintf(line + size, sizeof line - (size_t)size - 3, fields, args);
        va_end(args);
        /* Callers bound their texts; were one too long, half of it would be no JSON. */
        if (more < 0 || (size_t)more >= sizeof line - (size_t)size - 3)
            more = snprintf(line + size, 32, "\"cut\":true");
        size += more;
    }
    memcpy(line + size, "}\n", 3);
    size += 2;
    if (keep == KEEP) {
        free(ring[ring_next % RING]);
        ring[ring_next++ % RING] = strdup(line);
    }
    agent_send(line, (size_t)size);
}

void plain_text(char *to, size_t room, const char *text, size_t size) {
    size_t n = 0;
    for (; n < size && n + 1 < room; n++) {
        unsigned char c = (unsigned char)text[n];
        to[n] = c < ' ' || c > '~' || c == '"' || c == '\\' ? ' ' : (char)c;
    }
    to[n] = 0;
}

void agent_connect(void) {
    if (agent >= 0 || clock_ms() < retry_at)
        return;
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = MATERIAL "/agent.sock"};
    agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connected_at = clock_ms();
    if (connect(agent, (struct sockaddr *)&to, sizeof to)) {
        agent_drop();
        return;
    }
    char hello[256];
    int size = snprintf(hello, sizeof hello,
                        "{\"ev\":\"hello\",\"proto\":1,\"kernel\":\"%s\",\"last_seq\":%ld}\n",
                        kernel_id, sequence);
    bool there = agent_send(hello, (size_t)size);
    for (long i = ring_next > RING ? ring_next - RING : 0; there && i < ring_next; i++)
        if (ring[i % RING])
            there = agent_send(ring[i % RING], strlen(ring[i % RING]));
}

static void take_lines(command_handler *handle) {
    char *from = input, *newline;
    while ((newline = memchr(from, '\n', input_size - (size_t)(from - input)))) {
        struct command command;
        if (input_skipping)
            input_skipping = false;
        else if (command_parse(from, (size_t)(newline - from), &command))
            handle(&command);
        else
            event(ONCE, "warning", "\"what\":\"command\"");
        from = newline + 1;
        if (agent < 0) /* lost while it was answered */
            return;
    }
    input_size -= (size_t)(from - input);
    memmove(input, from, input_size);
    if (input_size == sizeof input) {
        if (!input_skipping)
            event(ONCE, "warning", "\"what\":\"command-size\"");
        input_skipping = true;
        input_size = 0;
    }
}

void agent_read(command_handler *handle) {
    ssize_t got = recv(agent, input + input_size, sizeof input - input_size, MSG_DONTWAIT);
    if (got > 0) {
        input_size += (size_t)got;
        take_lines(handle);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        agent_drop();
    }
}

/* What happens here, told to the agent: a ring of the last events, sent again after every
 * reconnection. The agent drops what it has seen by "seq". */
#include "phalanx.h"

#include <sys/un.h>

#define RING 512
#define BACKOFF_LOW_MS 100
#define BACKOFF_HIGH_MS 2000

int agent_fd = -1;
int64_t agent_retry_at;
static char *ring[RING], input[LINE_LIMIT];
static long ring_next, sequence;
static int backoff_ms = BACKOFF_LOW_MS;
static size_t input_size;

static void drop(void) {
    close(agent_fd);
    agent_fd = -1;
    input_size = 0;
    agent_retry_at = clock_ms() + backoff_ms;
    backoff_ms = backoff_ms * 2 < BACKOFF_HIGH_MS ? backoff_ms * 2 : BACKOFF_HIGH_MS;
}

/* An agent that does not read is treated as one that is gone: the ring keeps what it missed. */
static void tell(const char *line) {
    ssize_t size = (ssize_t)strlen(line);
    if (agent_fd >= 0 && send(agent_fd, line, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT) != size)
        drop();
}

void event(enum keep keep, const char *name, const char *fields, ...) {
    char line[LINE_LIMIT], members[LINE_LIMIT - 128];
    struct timespec now;
    va_list args;
    va_start(args, fields);
    int size = vsnprintf(members, sizeof members, fields, args);
    va_end(args);
    /* Callers bound their texts; were one too long, half of it would be no JSON. */
    if (size < 0 || (size_t)size >= sizeof members) strcpy(members, "\"cut\":true");
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(line, sizeof line, "{\"ev\":\"%s\",\"seq\":%ld,\"t\":%lld%s%s}\n", name, ++sequence,
             now.tv_sec * 1000000LL + now.tv_nsec / 1000, *members ? "," : "", members);
    if (keep == KEEP) {
        free(ring[ring_next % RING]);
        ring[ring_next++ % RING] = strdup(line);
    }
    tell(line);
}

void agent_connect(void) {
    if (agent_fd >= 0 || clock_ms() < agent_retry_at) return;
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = MATERIAL "/agent.sock"};
    char hello[256];
    agent_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(agent_fd, (struct sockaddr *)&to, sizeof to)) return drop();
    snprintf(hello, sizeof hello,
             "{\"ev\":\"hello\",\"proto\":1,\"kernel\":\"%s\",\"last_seq\":%ld}\n", conf.kernel,
             sequence);
    tell(hello);
    for (long i = ring_next > RING ? ring_next - RING : 0; i < ring_next; i++)
        if (ring[i % RING]) tell(ring[i % RING]);
}

static void take_lines(void (*obey)(const struct command *)) {
    char *from = input, *newline;
    while ((newline = memchr(from, '\n', input_size - (size_t)(from - input)))) {
        struct command command;
        *newline = 0;
        if (command_parse(from, &command)) obey(&command);
        else event(ONCE, "warning", "\"what\":\"command\"");
        from = newline + 1;
        if (agent_fd < 0) return; /* lost while it was answered */
    }
    input_size -= (size_t)(from - input);
    memmove(input, from, input_size);
    if (input_size == sizeof input) drop(); /* it speaks another language */
}

void agent_read(void (*obey)(const struct command *)) {
    ssize_t got = recv(agent_fd, input + input_size, sizeof input - input_size, MSG_DONTWAIT);
    if (got <= 0) return drop();
    backoff_ms = BACKOFF_LOW_MS; /* a connection that an agent uses is no mistake */
    input_size += (size_t)got;
    take_lines(obey);
}

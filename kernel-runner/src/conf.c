/* MATERIAL/runner.conf: key=value, one per line, no quoting. Unknown keys are left to newer
 * runners; a wrong value of a known one stops us, because it would be wrong silently later. */
#include "phalanx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool parse_number(const char *text, int low, int high, int *to) {
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*end || errno || value < low || value > high)
        return false;
    *to = (int)value;
    return true;
}

/* Ids, host names and addresses go into events and command lines as they are. */
static bool is_plain(const char *text) {
    for (; *text; text++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:@%/", *text))
            return false;
    return true;
}

static bool parse_plain(const char *text, size_t limit, const char **to) {
    if (strlen(text) > limit || !is_plain(text))
        return false;
    *to = text;
    return true;
}

/* NAME or NAME:PORT, separated by commas. */
static bool parse_peers(struct conf *conf, char *list) {
    conf->peer_count = 0;
    for (char *name = list; name && *name;) {
        char *comma = strchr(name, ',');
        if (comma)
            *comma++ = 0;
        struct peer *peer = &conf->peers[conf->peer_count];
        peer->port = 0;
        char *colon = strchr(name, ':');
        if (colon) {
            *colon++ = 0;
            if (!parse_number(colon, 1, 65535, &peer->port))
                return false;
        }
        if (!*name || !parse_plain(name, 253, &peer->name) || ++conf->peer_count == PEER_LIMIT)
            return false;
        name = comma;
    }
    return true;
}

static bool parse_setting(struct conf *conf, const char *key, char *value) {
    const struct {
        const char *key;
        int low, high, *to;
    } numbers[] = {
        {"ssh_port", 1, 65535, &conf->ssh_port},
        {"master_port", 0, 65535, &conf->master_port},
        {"mesh_timeout_s", 1, 86400, &conf->mesh_timeout_s},
        {"linger_s", 0, 86400, &conf->linger_s},
        {"grace_s", 0, 86400, &conf->grace_s},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(key, numbers[i].key))
            return parse_number(value, numbers[i].low, numbers[i].high, numbers[i].to);
    if (!strcmp(key, "kernel"))
        return *value && parse_plain(value, 128, &conf->kernel);
    if (!strcmp(key, "address"))
        return parse_plain(value, 64, &conf->address);
    if (!strcmp(key, "interface"))
        return parse_plain(value, 64, &conf->interface);
    if (!strcmp(key, "peers"))
        return parse_peers(conf, value);
    if (!strcmp(key, "workdir")) {
        conf->workdir = value;
        return !*value || *value == '/';
    }
    if (!strcmp(key, "command")) {
        conf->run = !strcmp(value, "run");
        return conf->run || !strcmp(value, "idle");
    }
    return true;
}

const char *conf_parse(struct conf *conf, char *text, size_t size) {
    conf->kernel = conf->address = conf->interface = conf->workdir = "";
    conf->ssh_port = 2200;
    conf->master_port = conf->peer_count = 0;
    conf->mesh_timeout_s = 60;
    conf->linger_s = 30;
    conf->grace_s = 10;
    conf->run = false;
    if (memchr(text, 0, size))
        return "line";
    text[size] = 0;
    for (char *line = text; line && *line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        char *equals = strchr(line, '=');
        if (*line && !equals)
            return "line";
        if (equals) {
            *equals = 0;
            if (!parse_setting(conf, line, equals + 1))
                return line;
        }
        line = next;
    }
    return *conf->kernel ? NULL : "kernel";
}

const char *conf_load(struct conf *conf) {
    static char text[128 * 1024]; /* a thousand peers; untouched pages cost nothing */
    int fd = open(MATERIAL "/runner.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return "missing";
    size_t size = 0;
    ssize_t got;
    while ((got = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)got;
    close(fd);
    return got < 0 || size == sizeof text - 1 ? "size" : conf_parse(conf, text, size);
}

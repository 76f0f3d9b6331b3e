/* MATERIAL/runner.conf: key=value, one per line, no quoting. Unknown keys are left to newer
 * runners; a wrong value of a known one stops us, because it would be wrong silently later. */
#include "phalanx.h"

/* Ids, host names and addresses go into events and command lines as they are. */
#define PLAIN "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:@%/"

static bool parse_plain(const char *text, size_t low, size_t high, const char **to) {
    size_t size = strspn(text, PLAIN);
    bool good = !text[size] && size >= low && size <= high;
    if (good) *to = text;
    return good;
}

static bool parse_number(const char *text, long low, long high, int *to) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    *to = (int)value;
    return *text >= '0' && *text <= '9' && !*end && !errno && value >= low && value <= high;
}

/* NAME or NAME:PORT, separated by commas. */
static bool parse_peers(struct conf *conf, char *list) {
    conf->peer_count = 0; /* the last line of its kind counts */
    for (char *name; (name = strsep(&list, ",")); conf->peer_count++) {
        if (conf->peer_count == PEER_LIMIT) return false;
        struct peer *peer = &conf->peers[conf->peer_count];
        char *port = strchr(name, ':');
        if (port) *port++ = 0;
        peer->port = 0;
        if (!parse_plain(name, 1, 253, &peer->name)) return false;
        if (port && !parse_number(port, 1, 65535, &peer->port)) return false;
    }
    return true;
}

static bool parse_setting(struct conf *conf, const char *key, char *value) {
    const struct {
        const char *key;
        long low, high; /* of a number, or of a text's length */
        int *number;
        const char **text;
    } settings[] = {
        {"kernel", 1, 128, NULL, &conf->kernel},
        {"address", 0, 64, NULL, &conf->address},
        {"interface", 0, 64, NULL, &conf->interface},
        {"ssh_port", 1, 65535, &conf->ssh_port, NULL},
        {"ssh_limit", 1, PEER_LIMIT, &conf->ssh_limit, NULL},
        {"master_port", 0, 65535, &conf->master_port, NULL},
        {"mesh_timeout_s", 1, 86400, &conf->mesh_timeout_s, NULL},
        {"linger_s", 0, 86400, &conf->linger_s, NULL},
        {"grace_s", 0, 86400, &conf->grace_s, NULL},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        long low = settings[i].low, high = settings[i].high;
        if (strcmp(key, settings[i].key)) continue;
        if (settings[i].number) return parse_number(value, low, high, settings[i].number);
        return parse_plain(value, (size_t)low, (size_t)high, settings[i].text);
    }
    if (!strcmp(key, "peers")) return !*value || parse_peers(conf, value);
    if (!strcmp(key, "workdir")) {
        conf->workdir = value;
        return !*value || *value == '/';
    }
    conf->run = strcmp(key, "command") ? conf->run : !strcmp(value, "run");
    return strcmp(key, "command") || conf->run || !strcmp(value, "idle");
}

const char *conf_parse(struct conf *conf, char *text, size_t size) {
    static struct peer peers[PEER_LIMIT];
    *conf = (struct conf){.kernel = "", .address = "", .interface = "", .workdir = "",
                          .ssh_port = 2200, .ssh_limit = 64, .peers = peers,
                          .mesh_timeout_s = 60, .linger_s = 30, .grace_s = 10};
    if (memchr(text, 0, size)) return "line";
    text[size] = 0;
    for (char *line; (line = strsep(&text, "\n"));) {
        char *value = strchr(line, '=');
        if (!*line) continue;
        if (!value) return "line";
        *value++ = 0;
        if (!parse_setting(conf, line, value)) return line;
    }
    return *conf->kernel ? NULL : "kernel";
}

const char *conf_load(struct conf *conf) {
    static char text[128 * 1024]; /* a thousand peers; untouched pages cost nothing */
    int fd = open(MATERIAL "/runner.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return "missing";
    ssize_t size = read(fd, text, sizeof text - 1); /* a file on tmpfs is read in one piece */
    close(fd);
    return conf_parse(conf, text, size > 0 ? (size_t)size : 0);
}

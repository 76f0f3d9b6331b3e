/* MATERIAL/runner.conf: key=value, one per line, no quoting. The agent writes all settings, and has
 * judged them; here only what memory depends on is looked at. Unknown keys are passed over. */
#include "phalanx.h"

struct conf conf;

static bool parse_number(const char *text, int low, int high, int *to) {
    char *end;
    long value = strtol(text, &end, 10);
    *to = (int)value;
    return *text >= '0' && *text <= '9' && !*end && value >= low && value <= high;
}

/* NAME or NAME:PORT, separated by commas. */
static bool parse_peers(char *list) {
    conf.peer_count = 0; /* the last line of its kind counts */
    for (char *port; (port = strsep(&list, ",")); conf.peer_count++) {
        if (conf.peer_count == PEER_LIMIT) return false;
        struct peer *peer = &conf.peers[conf.peer_count];
        *peer = (struct peer){strsep(&port, ":"), 0};
        if (!*peer->name || (port && !parse_number(port, 1, 65535, &peer->port))) return false;
    }
    return true;
}

static bool parse_setting(const char *key, char *value) {
    const struct {
        const char *key;
        int *to, low, high;
    } numbers[] = {
        {"ssh_port", &conf.ssh_port, 1, 65535},
        {"ssh_limit", &conf.ssh_limit, 1, PEER_LIMIT},
        {"master_port", &conf.master_port, 0, 65535},
        {"mesh_timeout_s", &conf.mesh_timeout_s, 1, 86400},
        {"linger_s", &conf.linger_s, 0, 86400},
        {"grace_s", &conf.grace_s, 0, 86400},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(key, numbers[i].key))
            return parse_number(value, numbers[i].low, numbers[i].high, numbers[i].to);
    if (!strcmp(key, "kernel")) conf.kernel = value;
    if (!strcmp(key, "address")) conf.address = value;
    if (!strcmp(key, "interface")) conf.interface = value;
    return strcmp(key, "peers") || !*value || parse_peers(value);
}

const char *conf_parse(char *text, size_t size) {
    conf = (struct conf){.kernel = "", .address = "", .interface = ""};
    if (memchr(text, 0, size)) return "line";
    text[size] = 0;
    for (char *value; (value = strsep(&text, "\n"));) {
        const char *key = strsep(&value, "=");
        if (*key && !value) return "line";
        if (*key && !parse_setting(key, value)) return key;
    }
    return !*conf.kernel ? "kernel" : !conf.ssh_port ? "ssh_port" : NULL;
}

const char *conf_load(void) {
    static char text[128 * 1024]; /* a thousand peers; untouched pages cost nothing */
    int fd = open(MATERIAL "/runner.conf", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return "missing";
    ssize_t size = read(fd, text, sizeof text - 1); /* a file on tmpfs is read in one piece */
    close(fd);
    return conf_parse(text, size > 0 ? (size_t)size : 0);
}

/* The first `ssh` on PATH. To a container of the session: the bundled client with the session's
 * configuration. To anywhere else: the image's own client, which knows more key types. */
#include "phalanx.h"

#define CLIENT BUNDLE "/libexec/ssh"
#define WITH_VALUE "BbcDEeFIiJLlmOoPpQRSWw"

static const char *find_destination(char **argv) {
    for (int i = 1; argv[i]; i++) {
        if (argv[i][0] != '-') return argv[i];
        if (!strcmp(argv[i], "--")) return argv[i + 1];
        size_t flags = strcspn(argv[i] + 1, WITH_VALUE);
        /* A letter with a value: that is the rest of this word, or the next one. */
        if (argv[i][1 + flags] && !argv[i][2 + flags] && !argv[++i]) break;
    }
    return NULL;
}

/* HOST, USER@HOST or ssh://[USER@]HOST[:PORT] */
static bool is_of_session(const char *destination) {
    if (conf_load()) return false;
    bool uri = !strncmp(destination, "ssh://", 6);
    const char *at = strrchr(destination, '@');
    const char *host = at ? at + 1 : uri ? destination + 6 : destination;
    size_t size = uri ? strcspn(host, ":/") : strlen(host);
    for (int i = 0; i < conf.peer_count; i++)
        if (strlen(conf.peers[i].name) == size && !memcmp(conf.peers[i].name, host, size))
            return true;
    return false;
}

static void try_image_client(char **argv) {
    char client[4096], *path = getenv("PATH"), *rest = path ? strdup(path) : NULL;
    for (const char *folder; (folder = strsep(&rest, ":"));) {
        if (!*folder || !strncmp(folder, BUNDLE "/", sizeof BUNDLE)) continue;
        snprintf(client, sizeof client, "%s/ssh", folder);
        execv(client, argv); /* comes back where there is none */
    }
}

int ssh_main(int argc, char **argv) {
    char **words = calloc((size_t)argc + 3, sizeof *words), **end = words;
    const char *destination = find_destination(argv);
    static char name[] = "ssh", option[] = "-F", config[] = MATERIAL "/ssh/ssh_config";
    if (!words) return 255;
    *end++ = argv[0] = name;
    if (destination && is_of_session(destination)) {
        *end++ = option; /* one of the user's comes later and wins */
        *end++ = config;
    } else if (destination) {
        try_image_client(argv);
    }
    memcpy(end, argv + 1, sizeof *words * (size_t)(argc - 1));
    execv(CLIENT, words);
    fprintf(stderr, "ssh: " CLIENT ": %s\n", strerror(errno));
    return 255;
}

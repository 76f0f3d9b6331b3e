/* The first `ssh` on PATH. To a container of the session: the bundled client with the session's
 * configuration. To anywhere else: the image's own client, which knows more key types. */
#include "phalanx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENT BUNDLE "/libexec/ssh"
#define WITH_VALUE "BbcDEeFIiJLlmOoPpQRSWw"

static const char *find_destination(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            return argv[i];
        if (!strcmp(argv[i], "--"))
            return i + 1 < argc ? argv[i + 1] : NULL;
        for (const char *letter = argv[i] + 1; *letter; letter++)
            if (strchr(WITH_VALUE, *letter)) {
                i += !letter[1]; /* the value is the rest of this word, or the next one */
                break;
            }
    }
    return NULL;
}

/* HOST, USER@HOST or ssh://[USER@]HOST[:PORT] */
static bool is_of_session(const char *destination) {
    static struct conf conf;
    if (conf_load(&conf))
        return false;
    bool uri = !strncmp(destination, "ssh://", 6);
    const char *host = uri ? destination + 6 : destination;
    const char *at = strrchr(host, '@');
    host = at ? at + 1 : host;
    size_t size = uri ? strcspn(host, ":/") : strlen(host);
    for (int i = 0; i < conf.peer_count; i++)
        if (strlen(conf.peers[i].name) == size && !memcmp(conf.peers[i].name, host, size))
            return true;
    return false;
}

static void try_image_client(char **argv) {
    char client[4096];
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t size = strcspn(path, ":");
        if (size && strncmp(path, BUNDLE "/", sizeof BUNDLE)) {
            int n = snprintf(client, sizeof client, "%.*s/ssh", (int)size, path);
            if (n > 0 && (size_t)n < sizeof client && !access(client, X_OK))
                execv(client, argv);
        }
        path += size;
        path += *path == ':';
    }
}

int ssh_main(int argc, char **argv) {
    char **words = calloc((size_t)argc + 3, sizeof *words);
    if (!words)
        return 255;
    static char name[] = "ssh", option[] = "-F", config[] = MATERIAL "/ssh/ssh_config";
    const char *destination = find_destination(argc, argv);
    int count = 0;
    words[count++] = name;
    if (destination && is_of_session(destination)) {
        words[count++] = option; /* one of the user's comes later and wins */
        words[count++] = config;
    } else if (destination) {
        argv[0] = name;
        try_image_client(argv);
    }
    memcpy(words + count, argv + 1, sizeof *words * (size_t)(argc - 1));
    execv(CLIENT, words);
    fprintf(stderr, "ssh: " CLIENT ": %s\n", strerror(errno));
    return 255;
}

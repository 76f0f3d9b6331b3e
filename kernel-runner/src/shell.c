/* The login shell of ssh sessions: puts the container's environment and directory back as they are
 * for the command, then becomes the image's own shell. */
#include "phalanx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SFTP_SERVER BUNDLE "/libexec/sftp-server"

static void restore(void) {
    char name[32];
    for (int i = 0; stashed[i]; i++) {
        snprintf(name, sizeof name, STASH_PREFIX "%s", stashed[i]);
        const char *value = getenv(name);
        if (value)
            setenv(stashed[i], value, 1);
        else
            unsetenv(stashed[i]);
        unsetenv(name);
    }
    const char *directory = getenv(STASH_PREFIX "CWD"), *home = getenv("HOME");
    if ((!directory || chdir(directory)) && (!home || chdir(home)) && chdir("/"))
        perror("phalanx-shell: /");
    unsetenv(STASH_PREFIX "CWD");
    unsetenv("PHALANX_SSH_HOME");
    unsetenv("PHALANX_SSH_SHELL");
}

static const char *find_shell(void) {
    const char *candidates[] = {getenv("SHELL"), "/bin/bash",   "/usr/bin/bash", "/bin/sh",
                                "/usr/bin/sh",   "/bin/ash", "/busybox/sh"};
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        const char *shell = candidates[i];
        if (shell && *shell == '/' && strncmp(shell, BUNDLE "/", sizeof BUNDLE) &&
            !access(shell, X_OK))
            return shell;
    }
    return NULL;
}

/* An image without a shell: a command of plain words needs none. */
static int run_plainly(char *line) {
    char *words[256];
    size_t count = 0;
    if (!line || strpbrk(line, "|&;<>()$`\\\"'*?[#~=%!{}\n\t")) {
        fprintf(stderr, "phalanx-shell: this image has no shell; only plain commands work\n");
        return EXIT_NOT_FOUND;
    }
    for (char *word = strtok(line, " "); word && count < 255; word = strtok(NULL, " "))
        words[count++] = word;
    words[count] = NULL;
    if (count)
        execvp(words[0], words);
    fprintf(stderr, "phalanx-shell: %s: %s\n", count ? words[0] : "", strerror(errno));
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

int shell_main(int argc, char **argv) {
    char *line = argc >= 3 && !strcmp(argv[1], "-c") ? argv[2] : NULL;
    restore();
    if (line && !strcmp(line, SFTP_SERVER))
        execl(SFTP_SERVER, "sftp-server", (char *)NULL);
    const char *shell = find_shell();
    if (!shell)
        return run_plainly(line);
    const char *name = strrchr(shell, '/') + 1;
    /* No login shell: /etc/profile would set PATH anew. */
    if (line)
        execl(shell, name, "-c", line, (char *)NULL);
    else
        execl(shell, name, (char *)NULL);
    fprintf(stderr, "phalanx-shell: %s: %s\n", shell, strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}

/* The login shell of ssh sessions: puts the container's environment and directory back as they are
 * for the command, then becomes the image's own shell. */
#include "phalanx.h"

#define SFTP_SERVER BUNDLE "/libexec/sftp-server"

static void restore(void) {
    char name[32];
    for (int i = 0; stashed[i]; i++) {
        snprintf(name, sizeof name, STASH "%s", stashed[i]);
        const char *value = getenv(name);
        if (value) setenv(stashed[i], value, 1);
        else unsetenv(stashed[i]);
        unsetenv(name);
    }
    const char *directory = getenv(STASH "CWD"), *home = getenv("HOME");
    if ((!directory || chdir(directory)) && (!home || chdir(home)) && chdir("/"))
        perror("phalanx-shell: /");
    unsetenv(STASH "CWD");
    unsetenv("PHALANX_SSH_HOME");
    unsetenv("PHALANX_SSH_SHELL");
}

static const char *find_shell(void) {
    const char *own = getenv("SHELL");
    const char *candidates[] = {own ? own : "", "/bin/bash", "/usr/bin/bash", "/bin/sh",
                                "/usr/bin/sh",  "/bin/ash",  "/busybox/sh",   NULL};
    for (const char **shell = candidates; *shell; shell++)
        if (**shell == '/' && strncmp(*shell, BUNDLE "/", sizeof BUNDLE) && !access(*shell, X_OK))
            return *shell;
    return NULL;
}

/* An image without a shell: a command of plain words needs none. */
static int run_plainly(char *line) {
    char *words[256] = {NULL};
    if (!line || strpbrk(line, "|&;<>()$`\\\"'*?[#~=%!{}\n\t")) {
        fprintf(stderr, "phalanx-shell: this image has no shell; only plain commands work\n");
        return EXIT_NOT_FOUND;
    }
    for (int count = 0; count < 255 && (words[count] = strtok(count ? NULL : line, " ")); count++) {
    }
    if (words[0]) execvp(words[0], words);
    fprintf(stderr, "phalanx-shell: %s: %s\n", line, strerror(errno));
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

int shell_main(int argc, char **argv) {
    char *line = argc >= 3 && !strcmp(argv[1], "-c") ? argv[2] : NULL;
    restore();
    if (line && !strcmp(line, SFTP_SERVER)) execl(SFTP_SERVER, "sftp-server", (char *)NULL);
    const char *shell = find_shell();
    if (!shell) return run_plainly(line);
    /* No login shell: /etc/profile would set PATH anew. */
    execl(shell, strrchr(shell, '/') + 1, line ? "-c" : NULL, line, (char *)NULL);
    fprintf(stderr, "phalanx-shell: %s: %s\n", shell, strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}

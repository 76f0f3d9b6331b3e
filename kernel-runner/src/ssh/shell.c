/* The login shell of ssh sessions, which have the container's environment and folder already:
 * becomes the image's own shell. */
#include "phalanx.h"

#define SFTP_SERVER BUNDLE "/libexec/sftp-server"

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
    for (int i = 0; i < 255 && (words[i] = strtok(i ? NULL : line, " ")); i++) {}
    return words[0] ? become("phalanx-shell", words) : 0;
}

int shell_main(int argc, char **argv) {
    char *line = argc >= 3 && !strcmp(argv[1], "-c") ? argv[2] : NULL;
    if (line && !strcmp(line, SFTP_SERVER)) execl(SFTP_SERVER, "sftp-server", (char *)NULL);
    const char *shell = find_shell();
    if (!shell) return run_plainly(line);
    /* No login shell: /etc/profile would set PATH anew. */
    execl(shell, strrchr(shell, '/') + 1, line ? "-c" : NULL, line, (char *)NULL);
    fprintf(stderr, "phalanx-shell: %s: %s\n", shell, strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}

/* phalanx-task DIR IN OUT ERR [COMMAND...]: begins a task in its folder and with its files, all of
 * which may be empty; without a command it writes what it reads. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_NO_FILE = 1, EXIT_USAGE = 64, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

static int complain(const char *what, int code) {
    dprintf(2, "phalanx-task: %s: %s\n", what, strerror(errno));
    return code;
}

static int take(const char *path, int flags, int as) {
    int fd = open(path, flags | O_NOCTTY, 0666);
    if (fd < 0 || dup2(fd, as) < 0) return complain(path, EXIT_NO_FILE);
    if (fd != as) close(fd);
    return 0;
}

static int take_all(const char *in, const char *out, const char *err) {
    const int fresh = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND;
    int code = *in ? take(in, O_RDONLY, 0) : 0;
    if (!code && *out) code = take(out, fresh, 1);
    if (code || !*err) return code;
    return strcmp(out, err) ? take(err, fresh, 2) : dup2(1, 2) < 0; /* one file is opened once */
}

static int copy(const char *to) {
    char block[1 << 16];
    for (ssize_t got; (got = read(0, block, sizeof block));) {
        if (got < 0) return complain("input", EXIT_NO_FILE);
        for (ssize_t at = 0, put; at < got; at += put)
            if ((put = write(1, block + at, (size_t)(got - at))) < 0)
                return complain(to, EXIT_NO_FILE);
    }
    return 0;
}

/* An engine tells a terminal its size a moment after it has begun the program on it. */
static void await_size(void) {
    const struct timespec moment = {0, 2 * 1000 * 1000};
    struct winsize size;
    for (int tries = 500; tries && !ioctl(0, TIOCGWINSZ, &size) && !size.ws_row; tries--)
        nanosleep(&moment, NULL);
}

int main(int argc, char **argv) {
    if (argc < 5) {
        dprintf(2, "usage: phalanx-task DIR IN OUT ERR [COMMAND...]\n");
        return EXIT_USAGE;
    }
    if (*argv[1] && chdir(argv[1])) {
        dprintf(2, "phalanx-task: %s: %s; it begins in /tmp\n", argv[1], strerror(errno));
        if (chdir("/tmp")) dprintf(2, "phalanx-task: /tmp: %s\n", strerror(errno));
    }
    int code = take_all(argv[2], argv[3], argv[4]);
    if (code) return code;
    if (argc == 5) return copy(argv[3]);
    await_size();
    execvp(argv[5], argv + 5);
    return complain(argv[5], errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

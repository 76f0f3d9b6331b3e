/* The processes that the runner starts: ssh servers, one per connection, and the user's command. */
#include "phalanx.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVER_LIMIT 1024
#define LOG_BURST 50 /* lines of the ssh servers told per LOG_WINDOW_MS; the rest is dropped */
#define LOG_WINDOW_MS 10000

const char *const stashed[] = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", NULL};

static pid_t servers[SERVER_LIMIT];
static int server_count;
static int log_read_fd = -1, log_write_fd = 2;
static int failure_fd = -1;
static const char *workdir = "";

void child_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void spawn_prepare(const struct conf *conf) {
    struct stat home;
    const char *path = getenv("HOME");
    if (!path || !*path || stat(path, &home) || !S_ISDIR(home.st_mode))
        setenv("HOME", "/tmp", 1);
    workdir = conf->workdir;
    int fds[2];
    if (!pipe2(fds, O_CLOEXEC | O_NONBLOCK)) {
        log_read_fd = fds[0];
        log_write_fd = fds[1];
    }
}

bool spawn_is_full(void) { return server_count == SERVER_LIMIT; }
int spawn_log_fd(void) { return log_read_fd; }

void spawn_reaped(pid_t pid) {
    for (int i = 0; i < server_count; i++)
        if (servers[i] == pid) {
            servers[i] = servers[--server_count];
            return;
        }
}

/* The server overwrites some variables and the directory; phalanx-shell puts them back. */
static void stash(void) {
    char name[32], here[4096];
    for (int i = 0; stashed[i]; i++) {
        const char *value = getenv(stashed[i]);
        snprintf(name, sizeof name, STASH_PREFIX "%s", stashed[i]);
        if (value)
            setenv(name, value, 1);
    }
    if (!*workdir || chdir(workdir))
        workdir = getcwd(here, sizeof here);
    setenv(STASH_PREFIX "CWD", workdir ? workdir : "/", 1);
    setenv("PHALANX_SSH_HOME", MATERIAL "/ssh", 1);
    setenv("PHALANX_SSH_SHELL", BUNDLE "/bin/phalanx-shell", 1);
}

static void become_ssh_server(int connection) {
    int one = 1;
    child_signals();
    fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) & ~O_NONBLOCK);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (dup2(connection, 0) < 0 || dup2(connection, 1) < 0 || dup2(log_write_fd, 2) < 0)
        _exit(EXIT_REFUSED);
    setsid();
    stash();
    execl(BUNDLE "/libexec/dropbear", "dropbear", "-i", "-e", "-K", "30", "-r",
          MATERIAL "/ssh/host_key", (char *)NULL);
    dprintf(2, "ssh server: %s\n", strerror(errno));
    _exit(EXIT_NOT_FOUND);
}

void spawn_ssh_server(int connection) {
    if (spawn_is_full())
        return;
    pid_t pid = fork();
    if (!pid)
        become_ssh_server(connection);
    if (pid > 0)
        servers[server_count++] = pid;
    else
        event(ONCE, "warning", "\"what\":\"fork\",\"errno\":%d", errno);
}

void spawn_log_read(void) {
    static int64_t window_ends;
    static int told;
    char text[2048], plain[512];
    ssize_t got = read(log_read_fd, text, sizeof text);
    int64_t now = clock_ms();
    if (now >= window_ends) {
        window_ends = now + LOG_WINDOW_MS;
        told = 0;
    }
    for (char *line = text, *end = text + (got > 0 ? got : 0); line < end;) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t size = (size_t)((newline ? newline : end) - line);
        plain_text(plain, sizeof plain, line, size);
        if (*plain && told++ < LOG_BURST)
            event(ONCE, "sshlog", "\"msg\":\"%s\"", plain);
        line += size + 1;
    }
}

static void become_command(char **argv, int failure) {
    child_signals();
    setpgid(0, 0);
    const char *subject = argv[0];
    if (*workdir && chdir(workdir))
        subject = workdir;
    else
        execvp(argv[0], argv);
    int why = errno;
    dprintf(2, "phalanx-init: %s: %s\n", subject, strerror(why));
    if (write(failure, &why, sizeof why) != sizeof why)
        _exit(EXIT_REFUSED);
    _exit(why == ENOENT && subject == argv[0] ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

pid_t spawn_command(char **argv) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return 0;
    pid_t pid = fork();
    if (!pid)
        become_command(argv, fds[1]);
    int why = errno;
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        errno = why;
        return 0;
    }
    failure_fd = fds[0];
    setpgid(pid, pid); /* also here: a signal may come before the child has run */
    return pid;
}

int spawn_command_failure(void) {
    int why = 0;
    if (failure_fd < 0 || read(failure_fd, &why, sizeof why) != sizeof why)
        why = 0;
    close(failure_fd);
    failure_fd = -1;
    return why;
}

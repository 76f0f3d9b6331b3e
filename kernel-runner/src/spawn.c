/* The processes that the runner starts: ssh servers, one per connection, and the user's command. */
#include "phalanx.h"

#include <sys/stat.h>

#define LOG_BURST 50 /* lines of the ssh servers told per LOG_WINDOW_MS; the rest is dropped */
#define LOG_WINDOW_MS 10000

const char *const stashed[] = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", NULL};
int log_fd = -1;
static int log_write_fd = 2, failure_fd = -1, server_limit, server_count;
static pid_t servers[PEER_LIMIT];
static const char *workdir = "";

void child_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void spawn_prepare(const struct conf *conf) {
    struct stat home;
    const char *path = getenv("HOME");
    if (!path || stat(path, &home) || !S_ISDIR(home.st_mode)) setenv("HOME", "/tmp", 1);
    workdir = conf->workdir;
    server_limit = conf->ssh_limit;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK)) return;
    log_fd = fds[0];
    log_write_fd = fds[1];
}

void log_read(void) {
    static int64_t window_ends;
    static int told;
    char text[512]; /* a server's line is shorter */
    ssize_t got = read(log_fd, text, sizeof text - 1);
    int64_t now = clock_ms();
    if (now >= window_ends) told = 0;
    if (!told) window_ends = now + LOG_WINDOW_MS;
    text[got > 0 ? got : 0] = 0;
    for (char *line, *rest = text; (line = strsep(&rest, "\n"));) {
        for (char *c = line; *c; c++) /* what JSON or a terminal would mind */
            if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') *c = ' ';
        if (*line && told++ < LOG_BURST) event(ONCE, "sshlog", "\"msg\":\"%s\"", line);
    }
}

/* The server overwrites some variables and the directory; phalanx-shell puts them back. */
static void stash(void) {
    char name[32], here[4096];
    for (int i = 0; stashed[i]; i++) {
        const char *value = getenv(stashed[i]);
        snprintf(name, sizeof name, STASH "%s", stashed[i]);
        if (value) setenv(name, value, 1);
    }
    if (!*workdir || chdir(workdir)) workdir = getcwd(here, sizeof here);
    setenv(STASH "CWD", workdir ? workdir : "/", 1);
    setenv("PHALANX_SSH_HOME", MATERIAL "/ssh", 1);
    setenv("PHALANX_SSH_SHELL", BUNDLE "/bin/phalanx-shell", 1);
}

/* A flood of connections must leave processes for the user: one above the limit is closed, and the
 * log says so. */
void spawn_ssh_server(int connection) {
    int one = 1;
    if (server_count == server_limit)
        return (void)dprintf(log_write_fd, "ssh: %d servers run, no more may\n", server_count);
    pid_t pid = fork();
    if (pid < 0) event(ONCE, "warning", "\"what\":\"fork\",\"errno\":%d", errno);
    if (pid > 0) servers[server_count++] = pid;
    if (pid) return;
    child_signals();
    setsid();
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (dup2(connection, 0) < 0 || dup2(connection, 1) < 0 || dup2(log_write_fd, 2) < 0) _exit(1);
    stash();
    execl(BUNDLE "/libexec/dropbear", "dropbear", "-i", "-e", "-K", "30", "-r",
          MATERIAL "/ssh/host_key", (char *)NULL);
    dprintf(2, "ssh server: %s\n", strerror(errno));
    _exit(EXIT_NOT_FOUND);
}

void spawn_ssh_server_ended(pid_t pid) {
    for (int i = server_count - 1; i >= 0; i--)
        if (servers[i] == pid) servers[i] = servers[--server_count];
}

static void become_command(char **argv, int failure) {
    const char *subject = argv[0];
    child_signals();
    setpgid(0, 0);
    if (*workdir && chdir(workdir)) subject = workdir;
    else execvp(argv[0], argv);
    int why = errno, code = EXIT_NOT_EXECUTABLE;
    dprintf(2, "phalanx-init: %s: %s\n", subject, strerror(why));
    if (why == ENOENT && subject == argv[0]) code = EXIT_NOT_FOUND;
    _exit(write(failure, &why, sizeof why) == sizeof why ? code : EXIT_REFUSED);
}

pid_t spawn_command(char **argv) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK)) return 0;
    pid_t pid = fork();
    if (!pid) become_command(argv, fds[1]);
    failure_fd = fds[0];
    close(fds[1]);
    setpgid(pid, pid); /* also here: a signal may come before the child has run */
    return pid > 0 ? pid : 0;
}

int spawn_command_failure(void) {
    int why = 0;
    if (read(failure_fd, &why, sizeof why) != sizeof why) why = 0;
    close(failure_fd);
    return why;
}

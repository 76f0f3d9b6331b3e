/* The processes that the runner starts: ssh servers, one per connection, and the user's command. */
#include "phalanx.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define LOG_BURST 50 /* lines of the ssh servers told per LOG_WINDOW_MS; the rest is dropped */
#define LOG_WINDOW_MS 10000

int log_fd = -1;
const int *command_failure;
static int log_write_fd = 2, server_count;
static pid_t servers[PEER_LIMIT];
static char folder[4096] = "/";

void child_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void spawn_prepare(void) {
    struct stat home;
    const char *path = getenv("HOME");
    if (!path || stat(path, &home) || !S_ISDIR(home.st_mode)) setenv("HOME", "/tmp", 1);
    if (!getcwd(folder, sizeof folder)) strcpy(folder, "/");
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

/* A flood of connections must leave processes for the user: one above the limit is closed, and the
 * log says so. The folder is taken by name: the command may have made it anew. */
void spawn_ssh_server(int connection) {
    if (server_count == conf.ssh_limit)
        return (void)dprintf(log_write_fd, "ssh: %d servers run, no more may\n", server_count);
    pid_t pid = fork();
    if (pid < 0) event(ONCE, "warning", "\"what\":\"fork\",\"errno\":%d", errno);
    if (pid > 0) servers[server_count++] = pid;
    if (pid) return;
    child_signals();
    if (dup2(connection, 0) < 0 || dup2(connection, 1) < 0 || dup2(log_write_fd, 2) < 0) _exit(1);
    if (chdir(folder) && chdir(getenv("HOME"))) perror("ssh server");
    char *server[] = {BUNDLE "/libexec/dropbear", "-i", "-e", "-K", "30", "-r",
                      MATERIAL "/ssh/host_key",   NULL};
    _exit(become("ssh server", server));
}

void spawn_ssh_server_ended(pid_t pid) {
    for (int i = server_count - 1; i >= 0; i--)
        if (servers[i] == pid) servers[i] = servers[--server_count];
}

pid_t spawn_command(char **argv) {
    int *failure = mmap(NULL, sizeof *failure, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0); /* written in the child, unless that has become the command */
    if (failure == MAP_FAILED) return -1;
    command_failure = failure;
    pid_t pid = fork();
    if (pid >= 0) setpgid(pid, pid); /* on both sides: a signal may come before the other has run */
    if (pid) return pid;
    child_signals();
    int code = become("phalanx-init", argv);
    *failure = errno;
    _exit(code);
}

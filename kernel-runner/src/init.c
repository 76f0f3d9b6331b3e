/* PID 1 of a container: ssh server, mesh check, the user's command, and its end. */
#include "phalanx.h"

#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define REFUSED_LINGER_MS 5000
#define LAST_REAP_MS 2000 /* after KILL; what is left then hangs in the kernel */

static struct {
    enum { WAITING, RUNNING, LINGERING, CLOSING } phase;
    char **argv;
    pid_t command;
    int exit_code, signals, listener, timer;
    int64_t deadline; /* of KILL; while LINGERING, of its end */
    int64_t lease;    /* when all has to be over, as far as we know */
    bool started, stopping, killed;
} self = {.listener = -1};

static int64_t after(int64_t ms) { return clock_ms() + ms; }

static void close_down(int64_t kill_at) {
    if (self.phase == CLOSING) { /* a later stop may shorten the grace */
        if (!self.killed && kill_at < self.deadline) self.deadline = kill_at;
        return;
    }
    self.phase = CLOSING;
    self.deadline = kill_at;
    mesh_abandon();
    kill(-1, SIGTERM); /* as PID 1: everything in the container but us */
}

static void close_down_with_grace(void) { close_down(after(conf.grace_s * 1000)); }

/* Ends after a moment: the agent may not know our pid yet, and so not have listened. */
static void refuse(const char *what, const char *detail, int number) {
    event(KEEP, "error", "\"what\":\"%s\",\"detail\":\"%s\",\"number\":%d", what, detail, number);
    dprintf(2, "phalanx-init: %s: %s %d\n", what, detail, number);
    self.exit_code = EXIT_REFUSED;
    self.phase = LINGERING;
    self.deadline = after(REFUSED_LINGER_MS);
}

/* A container without a command idles. */
static void start(void) {
    if (self.started || self.phase != WAITING) return;
    self.started = true;
    int probe = conf.master_port ? listen_everywhere(conf.master_port) : -1;
    if (probe >= 0) close(probe);
    else if (conf.master_port)
        event(KEEP, "warning", "\"what\":\"master-port\",\"port\":%d", conf.master_port);
    if (self.argv[0]) self.command = spawn_command(self.argv);
    if (self.command < 0) return refuse("fork", strerror(errno), errno);
    if (self.command) self.phase = RUNNING;
    event(KEEP, "started", "\"pid\":%d", self.command);
}

static void stop(const struct command *order) {
    self.stopping = true;
    if (self.phase != RUNNING) return close_down(after(order->grace_ms));
    self.deadline = after(order->grace_ms);
    kill(-self.command, (int)order->signal);
}

static void obey(const struct command *order) {
    switch (order->op) {
    case OP_MESH:  return self.phase == CLOSING ? (void)0 : mesh_begin();
    case OP_START: return start();
    case OP_STOP:  return stop(order);
    case OP_SIGNAL:
        return event(KEEP, "signalled", "\"signal\":%u,\"count\":%d", order->signal,
                     self.phase == RUNNING && !kill(-self.command, (int)order->signal));
    case OP_EXIT: return self.phase == LINGERING ? close_down_with_grace() : (void)0;
    case OP_PING: return event(ONCE, "pong", "");
    case OP_NONE: return;
    }
}

/* The number behind a word in a small file; 0 where there is none. */
static long long number_in(const char *path, const char *word) {
    char text[512] = "", *found = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) found = strstr(text, word);
    close(fd);
    return found ? strtoll(found + strlen(word), NULL, 10) : 0;
}

static void command_ended(int status) {
    int failure = *command_failure, signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    /* An engine is told by its shim, and misses some. Cgroups are of version 2, or of 1. */
    long long oom_kills = number_in("/sys/fs/cgroup/memory.events", "oom_kill ") +
                          number_in("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill ");
    int64_t kill_at = self.deadline; /* what is left of the grace of a stop */
    self.exit_code = signal ? 128 + signal : WEXITSTATUS(status);
    if (failure)
        event(KEEP, "error", "\"what\":\"exec\",\"errno\":%d,\"text\":\"%s\"", failure,
              strerror(failure));
    event(KEEP, "exited", "\"code\":%d,\"signal\":%d,\"oom_kills\":%lld", self.exit_code, signal,
          oom_kills);
    self.command = 0;
    self.phase = LINGERING;
    self.deadline = after(conf.linger_s * 1000);
    if (self.stopping && kill_at) close_down(kill_at);
    else if (self.stopping || !conf.linger_s) close_down_with_grace();
}

/* False when there is no child left. */
static bool reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == self.command) command_ended(status);
        else spawn_ssh_server_ended(pid);
    return pid == 0;
}

/* Signals that mean "stop": the usual ones, and the real-time ones that images name as STOPSIGNAL;
 * the kernel's begin at 32, of which libcs keep some to themselves. */
static void forward(int signal) {
    bool stops = signal == SIGTERM || signal == SIGINT || signal == SIGQUIT || signal >= 32;
    if (self.phase == RUNNING) {
        self.stopping |= stops;
        kill(-self.command, signal);
    } else if (stops) {
        if (self.phase == WAITING) self.exit_code = 128 + signal;
        close_down_with_grace();
    }
}

static void take_signals(void) {
    struct signalfd_siginfo info;
    while (read(self.signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD) forward((int)info.ssi_signo);
    reap();
}

static void take_deadline(int64_t now) {
    if (!self.deadline || now < self.deadline) return;
    if (self.phase == LINGERING) return close_down_with_grace();
    if (!self.killed) kill(-1, SIGKILL);
    self.deadline = self.killed ? 0 : now + LAST_REAP_MS;
    self.killed = true;
}

/* MATERIAL/lease says until when; the agent moves that on for as long as it hears from its manager.
 * Afterwards the work may be given to another host: nothing may be left of it here. With PID 1 the
 * kernel ends all others. */
static void take_lease(void) {
    int64_t moved = self.lease && clock_ms() >= self.lease ? number_in(MATERIAL "/lease", "") : 0;
    if (moved) self.lease = moved;
    if (!self.lease || clock_ms() < self.lease) return;
    event(KEEP, "error", "\"what\":\"lease\"");
    _exit(self.phase == WAITING || self.phase == RUNNING ? EXIT_FENCED : self.exit_code);
}

static bool is_over(void) {
    return self.phase == CLOSING && (!reap() || (self.killed && !self.deadline));
}

static int64_t sooner(int64_t one, int64_t other) {
    return !one || (other && other < one) ? other : one;
}

/* Waits with a timer of our clock, because what poll() waits for does not go on in suspension. */
static void turn(void) {
    enum { SIGNALS, TIMER, LISTENER, AGENT, LOG, MESH, ALL };
    struct pollfd polled[ALL] = {
        [SIGNALS] = {self.signals, POLLIN, 0},
        [TIMER] = {self.timer, POLLIN, 0},
        [LISTENER] = {self.listener, POLLIN, 0},
        [AGENT] = {agent_fd, POLLIN, 0},
        [LOG] = {log_fd, POLLIN, 0},
        [MESH] = {mesh_fd, POLLIN, 0},
    };
    int64_t retry_at = agent_fd < 0 ? agent_retry_at : 0;
    int64_t wake = sooner(sooner(self.deadline, self.lease), retry_at);
    struct itimerspec due = {.it_value = {wake / 1000, wake % 1000 * 1000000}};
    timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &due, NULL);
    poll(polled, ALL, -1);
    take_lease(); /* before anything else: we may have slept for long */
    if (polled[SIGNALS].revents) take_signals();
    if (polled[LOG].revents) log_read();
    if (polled[MESH].revents && mesh_fd >= 0) mesh_read();
    if (polled[LISTENER].revents) let_in(self.listener);
    if (polled[AGENT].revents && agent_fd >= 0) agent_read(obey);
    agent_connect();
    take_deadline(clock_ms());
}

static void boot(const char *wrong) {
    sigset_t all;
    memset(&all, -1, sizeof all); /* sigfillset() leaves out what a libc keeps to itself */
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_DUMPABLE, 0); /* the user's processes may not trace us */
    self.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    self.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
    self.lease = number_in(MATERIAL "/lease", "");
    agent_connect();
    event(KEEP, "boot", "\"pid\":%d,\"uid\":%d,\"gid\":%d", getpid(), getuid(), getgid());
    if (wrong) return refuse("conf", wrong, 0);
    if (*conf.address && *conf.interface && !address_on_interface(conf.address, conf.interface))
        return refuse("interface", conf.interface, 0);
    self.listener = listen_everywhere(conf.ssh_port);
    if (self.listener < 0) return refuse("ssh-port", strerror(errno), conf.ssh_port);
    spawn_prepare();
    event(KEEP, "ready", "\"port\":%d", conf.ssh_port);
}

int init_main(char **argv) {
    const char *wrong = conf_load();
    if (getpid() != 1 || (wrong && !strcmp(wrong, "missing"))) {
        /* It signals every process that it can see, which is right only in a container. */
        fprintf(stderr, "phalanx-init: not PID 1 of a container with " MATERIAL "/runner.conf\n");
        return EXIT_REFUSED;
    }
    self.argv = argv;
    for (boot(wrong); !is_over();) turn();
    event(KEEP, "bye", "\"code\":%d", self.exit_code);
    return self.exit_code;
}

/* PID 1 of a container: ssh server, mesh check, the user's command, and its end. */
#include "phalanx.h"

#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define REFUSED_LINGER_MS 5000
#define LAST_REAP_MS 2000 /* after KILL; what is left then hangs in the kernel */

static struct conf conf;
static struct {
    enum { WAITING, RUNNING, LINGERING, CLOSING } phase;
    char **argv;
    pid_t command;
    int exit_code, signals, listener, timer;
    int64_t deadline; /* of KILL; while LINGERING, of its end; -1: none */
    int64_t lease;    /* when all has to be over, as far as we know; -1: never */
    bool started, stopping, killed;
} self = {.listener = -1, .deadline = -1, .lease = -1};

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

static void start(void) {
    if (self.started || self.phase != WAITING) return;
    self.started = true;
    int probe = conf.master_port ? listen_everywhere(conf.master_port) : -1;
    if (probe >= 0) close(probe);
    else if (conf.master_port)
        event(KEEP, "warning", "\"what\":\"master-port\",\"port\":%d", conf.master_port);
    self.command = conf.run ? spawn_command(self.argv) : 0;
    if (self.command || !conf.run) {
        self.phase = conf.run ? RUNNING : WAITING;
        event(KEEP, "started", "\"pid\":%d", self.command);
    } else {
        event(KEEP, "error", "\"what\":\"fork\",\"errno\":%d", errno);
        self.exit_code = EXIT_NOT_EXECUTABLE;
        close_down_with_grace();
    }
}

static void stop(const struct command *order) {
    int64_t kill_at = after(order->grace_ms < 0 ? conf.grace_s * 1000 : order->grace_ms);
    self.stopping = true;
    if (self.phase != RUNNING) return close_down(kill_at);
    self.deadline = kill_at;
    kill(-self.command, order->signal ? order->signal : SIGTERM);
}

static void obey(const struct command *order) {
    switch (order->op) {
    case OP_MESH:  return self.phase == CLOSING ? (void)0 : mesh_begin(&conf);
    case OP_START: return start();
    case OP_STOP:  return stop(order);
    case OP_SIGNAL:
        return event(KEEP, "signalled", "\"signal\":%d,\"count\":%d", order->signal,
                     self.phase == RUNNING && !kill(-self.command, order->signal));
    case OP_EXIT: return self.phase == LINGERING ? close_down_with_grace() : (void)0;
    case OP_PING: return event(ONCE, "pong", "");
    case OP_NONE: return;
    }
}

static void command_ended(int status) {
    int failure = spawn_command_failure(), signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int64_t kill_at = self.deadline; /* what is left of the grace of a stop */
    self.exit_code = signal ? 128 + signal : WEXITSTATUS(status);
    if (failure)
        event(KEEP, "error", "\"what\":\"exec\",\"errno\":%d,\"text\":\"%s\"", failure,
              strerror(failure));
    event(KEEP, "exited", "\"code\":%d,\"signal\":%d", self.exit_code, signal);
    self.command = 0;
    self.phase = LINGERING;
    self.deadline = after(conf.linger_s * 1000);
    if (self.stopping && kill_at >= 0) close_down(kill_at);
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
    if (self.deadline < 0 || now < self.deadline) return;
    if (self.phase == LINGERING) return close_down_with_grace();
    if (!self.killed) kill(-1, SIGKILL);
    self.deadline = self.killed ? -1 : now + LAST_REAP_MS;
    self.killed = true;
}

/* MATERIAL/lease: the agent moves the moment on for as long as it hears from its manager. */
static void lease_read(void) {
    char text[32] = "";
    int fd = open(MATERIAL "/lease", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) self.lease = strtoll(text, NULL, 10);
    close(fd);
    struct itimerspec due = {.it_value = {self.lease / 1000, self.lease % 1000 * 1000000}};
    if (self.lease > 0) timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &due, NULL);
}

/* The work may be given to another host now: nothing may be left of it here. With PID 1 the kernel
 * ends all others. */
static void take_lease(void) {
    if (self.lease >= 0 && clock_ms() >= self.lease) lease_read();
    if (self.lease < 0 || clock_ms() < self.lease) return;
    event(KEEP, "error", "\"what\":\"lease\"");
    _exit(self.phase == WAITING || self.phase == RUNNING ? EXIT_FENCED : self.exit_code);
}

static bool is_over(void) {
    return self.phase == CLOSING && (!reap() || (self.killed && self.deadline < 0));
}

static int64_t sooner(int64_t one, int64_t other) {
    return one < 0 || (other >= 0 && other < one) ? other : one;
}

static void turn(void) {
    enum { SIGNALS, LISTENER, AGENT, LOG, MESH, LEASE, GUESTS };
    int count = guest_count, knock = count < DOOR_LIMIT ? self.listener : -1;
    struct pollfd polled[GUESTS + DOOR_LIMIT] = {
        {self.signals, POLLIN, 0}, {knock, POLLIN, 0}, {agent_fd, POLLIN, 0},
        {log_fd, POLLIN, 0}, {mesh_fd, POLLIN, 0}, {self.timer, POLLIN, 0}};
    for (int i = 0; i < count; i++) polled[GUESTS + i] = (struct pollfd){guests[i].fd, POLLIN, 0};
    int64_t wake = sooner(sooner(self.deadline, door_deadline()),
                          sooner(mesh_deadline, agent_fd < 0 ? agent_retry_at : -1));
    int64_t wait = wake - clock_ms();
    poll(polled, (nfds_t)(GUESTS + count), wake < 0 ? -1 : wait < 0 ? 0 : (int)wait);
    take_lease(); /* before anything else: we may have slept for long */
    int64_t now = clock_ms();
    if (polled[SIGNALS].revents) take_signals();
    if (polled[LOG].revents) log_read();
    mesh_progress(now);
    for (int i = count - 1; i >= 0; i--) /* downwards: a leaver's place is taken by the last */
        door_look(i, now, polled[GUESTS + i].revents);
    if (polled[LISTENER].revents) door_accept(self.listener);
    if (polled[AGENT].revents && agent_fd >= 0) agent_read(obey);
    agent_connect(conf.kernel);
    take_deadline(now);
}

static void refuse(const char *what, const char *detail, int number) {
    event(KEEP, "error", "\"what\":\"%s\",\"detail\":\"%s\",\"number\":%d", what, detail, number);
    dprintf(2, "phalanx-init: %s: %s %d\n", what, detail, number);
    self.exit_code = EXIT_REFUSED;
    self.phase = LINGERING; /* the agent may not know our pid yet, and so not have listened */
    self.deadline = after(REFUSED_LINGER_MS);
}

static void boot(const char *wrong) {
    sigset_t all;
    memset(&all, -1, sizeof all); /* sigfillset() leaves out what a libc keeps to itself */
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_DUMPABLE, 0); /* the user's processes may not trace us */
    self.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    self.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
    lease_read();
    agent_connect(conf.kernel);
    event(KEEP, "boot", "\"pid\":%d,\"uid\":%d,\"gid\":%d", getpid(), getuid(), getgid());
    if (!wrong && conf.run && !self.argv[0]) wrong = "command";
    if (wrong) return refuse("conf", wrong, 0);
    if (*conf.address && *conf.interface && !address_on_interface(conf.address, conf.interface))
        return refuse("interface", conf.interface, 0);
    self.listener = listen_everywhere(conf.ssh_port);
    if (self.listener < 0) return refuse("ssh-port", strerror(errno), conf.ssh_port);
    spawn_prepare(&conf);
    event(KEEP, "ready", "\"port\":%d", conf.ssh_port);
}

int init_main(char **argv) {
    const char *wrong = conf_load(&conf);
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

/* What a container asks for, under the names of the programs that people know: phalanx, scontrol,
 * srun and others. Nothing is decided here: the command line, the folder and the environment go to
 * the agent, what comes back is written, and the exit code is the answer's.
 *
 * Frames in both directions: a letter, the size as four bytes, the most significant first, the
 * content. There: (a)sk, (i)nput (nothing: its end), (s)ignal, (w)indow. Back: (b)egun, (m)ore, (o)utput,
 * (e)rrors, e(x)it. Input is not touched, and signals do what they always do, until (b)egun has
 * come; after each (i)nput the next one waits for (m)ore, so that signals never wait behind it.
 * Until anything has come, an agent that went away is asked again when it is back. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef ASK_SOCKET /* tests have others */
#define ASK_SOCKET "/run/phalanx/ask.sock"
#define PATIENCE_MS 30000 /* for an agent that is away */
#endif
#define ANSWER_MS 90000   /* for its first word; it waits for the manager meanwhile */
#define HEADER 5
#define INPUT 16384
enum { EXIT_USAGE = 64, EXIT_AWAY = 69 };

extern char **environ;
static const char *name;
static int connection = -1, signals[2] = {-1, -1};
static bool heard, begun, raw, wanted; /* wanted: the next input */
static struct termios terminal;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void be_usual(void) {
    if (raw) tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
    raw = false;
}

_Noreturn static void leave(int code, const char *why) {
    be_usual();
    if (why) fprintf(stderr, "%s: %s\n", name, why);
    exit(code);
}

static void put_header(char *at, char kind, size_t size) {
    uint32_t wire = htonl((uint32_t)size);
    at[0] = kind;
    memcpy(at + 1, &wire, sizeof wire);
}

/* ---------------------------------------------------------------- the question */

static char *request(int argc, char **argv, size_t *size) {
    char cwd[4096], head[80];
    struct winsize window = {.ws_row = 24, .ws_col = 80};
    bool tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (tty) ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
    if (!getcwd(cwd, sizeof cwd)) *cwd = 0;
    snprintf(head, sizeof head, "1 %d %d %u %u", argc, tty, window.ws_row, window.ws_col);
    *size = HEADER + strlen(head) + strlen(cwd) + strlen(name) + 3;
    for (int i = 1; i < argc; i++) *size += strlen(argv[i]) + 1;
    for (char **variable = environ; *variable; variable++) *size += strlen(*variable) + 1;
    char *made = malloc(*size), *end = made + HEADER;
    if (!made) leave(EXIT_AWAY, "out of memory");
    put_header(made, 'a', *size - HEADER);
    end = stpcpy(end, head) + 1;
    end = stpcpy(end, cwd) + 1;
    end = stpcpy(end, name) + 1;
    for (int i = 1; i < argc; i++) end = stpcpy(end, argv[i]) + 1;
    for (char **variable = environ; *variable; variable++) end = stpcpy(end, *variable) + 1;
    return made;
}

/* Whoever refuses says why before hanging up: that is read, whatever came of sending. */
static void send_all(const char *from, size_t size) {
    while (size) {
        ssize_t sent = send(connection, from, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return;
        from += sent;
        size -= (size_t)sent;
    }
}

static void send_frame(char kind, const void *content, size_t size) {
    char frame[HEADER + INPUT];
    put_header(frame, kind, size);
    memcpy(frame + HEADER, content, size);
    send_all(frame, HEADER + size);
}

static void ask(const char *question, size_t size, int64_t until) {
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = ASK_SOCKET};
    struct timeval a_moment = {1, 0}, for_ever = {0, 0};
    for (int wait_ms = 50;; wait_ms = wait_ms < 800 ? wait_ms * 2 : wait_ms) {
        connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connection < 0) leave(EXIT_AWAY, strerror(errno));
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &a_moment, sizeof a_moment);
        if (!connect(connection, (struct sockaddr *)&to, sizeof to)) {
            setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &for_ever, sizeof for_ever);
            send_all(question, size);
            return;
        }
        if (errno == EACCES || errno == EPERM) leave(EXIT_AWAY, ASK_SOCKET ": not permitted");
        close(connection);
        if (now_ms() + wait_ms > until)
            leave(EXIT_AWAY, "this host's agent is away: " ASK_SOCKET
                             " does not answer; try again, or ask from outside");
        poll(NULL, 0, wait_ms);
    }
}

/* ---------------------------------------------------------------- while it runs */

static void on_signal(int number) {
    int was = errno;
    unsigned char byte = (unsigned char)number;
    if (write(signals[1], &byte, 1) < 0) {} /* a full pipe has signals enough */
    errno = was;
}

static void begin(unsigned char how) {
    static const int relayed[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    begun = wanted = true;
    if (pipe2(signals, O_CLOEXEC | O_NONBLOCK)) leave(EXIT_AWAY, strerror(errno));
    for (size_t i = 0; i < sizeof relayed / sizeof *relayed; i++) {
        struct sigaction before;
        sigaction(relayed[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(relayed[i], &action, NULL);
    }
    if (how == 1 && !tcgetattr(STDIN_FILENO, &terminal)) {
        struct termios passing = terminal;
        cfmakeraw(&passing);
        raw = !tcsetattr(STDIN_FILENO, TCSADRAIN, &passing);
    }
}

static void relay_signal(void) {
    unsigned char number;
    struct winsize window;
    while (read(signals[0], &number, 1) == 1) {
        if (number != SIGWINCH) {
            send_frame('s', &number, 1);
        } else if (!ioctl(STDIN_FILENO, TIOCGWINSZ, &window)) {
            uint16_t size[2] = {htons(window.ws_row), htons(window.ws_col)};
            send_frame('w', size, sizeof size);
        }
    }
}

static void relay_input(void) {
    char content[INPUT];
    ssize_t got = read(STDIN_FILENO, content, sizeof content);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    wanted = false;
    send_frame('i', content, got > 0 ? (size_t)got : 0);
}

static void write_all(int to, const char *from, size_t size) {
    while (size) {
        ssize_t written = write(to, from, size);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd room = {to, POLLOUT, 0};
            poll(&room, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            leave(EXIT_AWAY, strerror(errno));
        }
        if (written > 0) {
            from += written;
            size -= (size_t)written;
        }
    }
}

static bool receive(void *to, size_t size) {
    char *at = to;
    while (size) {
        ssize_t got = recv(connection, at, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

/* One frame; false when the agent is gone. */
static bool take_frame(void) {
    unsigned char header[HEADER], byte;
    char content[INPUT];
    uint32_t left;
    if (!receive(header, sizeof header)) return false;
    heard = true;
    memcpy(&left, header + 1, sizeof left);
    left = ntohl(left);
    if (header[0] == 'o' || header[0] == 'e') {
        for (size_t piece; left; left -= (uint32_t)piece) {
            piece = left < sizeof content ? left : sizeof content;
            if (!receive(content, piece)) return false;
            write_all(header[0] == 'o' ? STDOUT_FILENO : STDERR_FILENO, content, piece);
        }
        return true;
    }
    if (header[0] == 'm') wanted = true;
    if (left != 1 || !receive(&byte, 1)) return header[0] == 'm' && !left;
    if (header[0] == 'x') leave(byte, NULL);
    if (header[0] == 'b' && !begun) begin(byte);
    return true;
}

/* Until the agent is gone, which before its first word may be forgiven. */
static void relay(int64_t until) {
    for (;;) {
        struct pollfd all[] = {
            {connection, POLLIN, 0},
            {signals[0], POLLIN, 0},
            {wanted ? STDIN_FILENO : -1, POLLIN, 0},
        };
        int64_t left = until - now_ms();
        int ready = poll(all, 3, heard ? -1 : left > 0 ? (int)left : 0);
        if (!ready && !heard) leave(EXIT_AWAY, "this host's agent does not answer; try again");
        if (ready < 0) continue;
        if (all[1].revents) relay_signal();
        if (all[2].revents) relay_input();
        if (all[0].revents && !take_frame()) return;
    }
}

int main(int argc, char **argv) {
    if (!argc) return EXIT_USAGE;
    const char *slash = strrchr(argv[0], '/');
    name = slash ? slash + 1 : argv[0];
    size_t size;
    char *question = request(argc, argv, &size);
    int64_t began = now_ms();
    do {
        ask(question, size, began + PATIENCE_MS);
        relay(began + ANSWER_MS);
        close(connection);
        if (!heard) poll(NULL, 0, 100);
    } while (!heard && now_ms() < began + PATIENCE_MS);
    free(question);
    leave(EXIT_AWAY, "this host's agent went away before the end; whether it was done is not known");
}

/* What the files of the runner share. One process, one thread, no allocation after boot except for
 * the ring of events. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BUNDLE "/opt/phalanx"
#define MATERIAL "/run/phalanx"
#define LINE_LIMIT 4096 /* bytes of one message, newline included, both ways */
#define PEER_LIMIT 1024
#define EXIT_REFUSED 125
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

/* conf.c: MATERIAL/runner.conf. Texts point into the buffer that was parsed. */
struct peer {
    const char *name;
    int port;
};

struct conf {
    const char *kernel, *address, *interface, *workdir;
    int ssh_port, master_port, mesh_timeout_s, linger_s, grace_s;
    bool run;
    int peer_count;
    struct peer peers[PEER_LIMIT];
};

/* Parses `size` bytes of `text` in place; text[size] must be writable. Returns NULL, or the name of
 * the first key (or the word "line") that is wrong. */
const char *conf_parse(struct conf *conf, char *text, size_t size);
/* Reads the file. Returns NULL, or what is wrong as conf_parse() does; "missing" without a file. */
const char *conf_load(struct conf *conf);

/* command.c: one line from the agent. */
enum operation { OP_NONE, OP_MESH, OP_START, OP_STOP, OP_SIGNAL, OP_EXIT, OP_PING };

struct command {
    enum operation op;
    int signal;   /* 0: not given */
    int grace_ms; /* -1: not given */
};

/* `line` needs no terminator. False when it is no JSON object of plain values with a known op. */
bool command_parse(const char *line, size_t size, struct command *command);

/* clock.c: milliseconds of a clock that is never set, and microseconds since 1970. */
int64_t clock_ms(void);
int64_t clock_unix_us(void);

/* events.c: the journal, and the connection to the agent. */
enum keep { KEEP, ONCE }; /* ONCE: of interest only while it happens, never replayed */
typedef void command_handler(const struct command *command);

void events_open(const char *kernel);
/* Fields are JSON members without the enclosing braces, "" for none. */
__attribute__((format(printf, 3, 4))) void event(enum keep keep, const char *name,
                                                 const char *fields, ...);
/* Copies `text` without what JSON or a terminal would mind. */
void plain_text(char *to, size_t room, const char *text, size_t size);
int agent_fd(void);          /* -1: not connected */
int64_t agent_retry_at(void); /* in clock_ms(), while not connected */
void agent_connect(void);
void agent_read(command_handler *handle);

/* net.c */
bool address_on_interface(const char *address, const char *interface);
int ssh_listen(int port); /* -1 with errno */
bool port_is_free(int port);

/* door.c: new connections of the ssh port, until it is known what they want. */
#define DOOR_LIMIT 128
bool door_open(void);
void door_accept(int listener);
int door_count(void);
int door_fd(int i);
void door_look(int i, int64_t now, bool readable);
int64_t door_deadline(void); /* -1: nobody waits */

/* mesh.c */
void mesh_begin(const struct conf *conf);
int mesh_fd(void);           /* -1: no check under way */
int64_t mesh_deadline(void); /* -1: no check under way */
void mesh_progress(int64_t now);
void mesh_abandon(void);

/* spawn.c */
void spawn_ssh_server(int connection);
bool spawn_is_full(void);
void spawn_reaped(pid_t pid);
void spawn_prepare(const struct conf *conf); /* the log pipe, HOME and the working directory */
int spawn_log_fd(void);
void spawn_log_read(void);
/* 0 with errno when it could not even fork. */
pid_t spawn_command(char **argv);
/* 0, or why the command could not be executed. */
int spawn_command_failure(void);
void child_signals(void);

/* The programs. */
int init_main(char **argv);
int shell_main(int argc, char **argv);
int ssh_main(int argc, char **argv);
int solo_main(char **argv);
/* What an ssh session must find as the container has it although the server overwrites it. */
#define STASH_PREFIX "PHALANX_O_"
extern const char *const stashed[]; /* ends with NULL */

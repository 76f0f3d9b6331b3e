/* The agent's commands: a flat JSON object on one line. Everything is bounded and nothing is
 * copied; a member that we do not know is skipped, a value that we do not understand refuses the
 * line. */
#include "phalanx.h"

/* kind: the mark itself for one of {}:, else T (text), N (number), 0. */
struct token {
    char kind;
    const char *from;
    size_t size;
    long number;
};

/* The text between the quotes, escapes left as they are: no name of ours has one. */
static const char *text_end(const char *at, const char *end) {
    for (; at < end && (unsigned char)*at >= ' '; at++) {
        if (*at == '"') return at;
        if (*at == '\\' && ++at == end) break;
    }
    return NULL;
}

static struct token next(const char **at, const char *end) {
    while (*at < end && strchr(" \t\r", **at) && **at) ++*at;
    struct token token = {0, *at, 0, 0};
    if (*at == end || !**at) return token;
    if (strchr("{}:,", **at)) {
        token.kind = *(*at)++;
    } else if (**at == '"') {
        const char *close = text_end(++token.from, end);
        if (!close) return token;
        token.kind = 'T';
        token.size = (size_t)(close - token.from);
        *at = close + 1;
    } else {
        const char *digits = *at;
        while (*at < end && **at >= '0' && **at <= '9' && *at - digits < 10)
            token.number = token.number * 10 + *(*at)++ - '0';
        token.kind = *at > digits ? 'N' : 0;
    }
    return token;
}

static bool equal(const struct token *token, const char *to) {
    return token->size == strlen(to) && !memcmp(token->from, to, token->size);
}

static bool take(struct command *command, const struct token *key, const struct token *value) {
    static const char *const names[] = {"", "mesh", "start", "stop", "signal", "exit", "ping"};
    bool number = value->kind == 'N';
    if (equal(key, "op")) {
        for (int i = OP_MESH; value->kind == 'T' && i <= OP_PING; i++)
            if (equal(value, names[i])) command->op = (enum operation)i;
        return command->op != OP_NONE;
    }
    if (equal(key, "signal")) {
        command->signal = (int)value->number;
        return number && value->number >= 1 && value->number <= 64;
    }
    if (equal(key, "grace_ms")) {
        command->grace_ms = (int)value->number;
        return number && value->number >= 0 && value->number <= 86400000;
    }
    return number || value->kind == 'T';
}

bool command_parse(const char *line, size_t size, struct command *command) {
    const char *end = line + size;
    struct token after = next(&line, end);
    *command = (struct command){OP_NONE, 0, -1};
    for (bool first = true; first ? after.kind == '{' : after.kind == ','; first = false) {
        struct token key = next(&line, end), colon = next(&line, end), value = next(&line, end);
        if (key.kind != 'T' || colon.kind != ':' || !take(command, &key, &value)) return false;
        after = next(&line, end);
    }
    return after.kind == '}' && !next(&line, end).kind && line == end && command->op != OP_NONE &&
           (command->op != OP_SIGNAL || command->signal);
}

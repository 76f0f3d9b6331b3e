/* The agent's commands: a flat JSON object on one line. Everything is bounded and nothing is
 * copied; a value that we do not know is skipped, one that we do not understand refuses the line. */
#include "phalanx.h"

#include <string.h>

struct reader {
    const char *at, *end;
};

struct text {
    const char *from;
    size_t size;
};

static bool equal(struct text text, const char *to) {
    return text.size == strlen(to) && !memcmp(text.from, to, text.size);
}

static void skip_space(struct reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\r'))
        in->at++;
}

static bool take(struct reader *in, char wanted) {
    skip_space(in);
    if (in->at == in->end || *in->at != wanted)
        return false;
    in->at++;
    return true;
}

/* The text between the quotes, escapes left as they are: no name of ours has one. */
static bool take_text(struct reader *in, struct text *text) {
    if (!take(in, '"'))
        return false;
    text->from = in->at;
    for (; in->at < in->end; in->at++) {
        if (*in->at == '"') {
            text->size = (size_t)(in->at - text->from);
            in->at++;
            return true;
        }
        if ((unsigned char)*in->at < ' ')
            return false;
        if (*in->at == '\\' && ++in->at == in->end)
            return false;
    }
    return false;
}

static bool take_number(struct reader *in, long *number) {
    skip_space(in);
    bool negative = in->at < in->end && *in->at == '-';
    in->at += negative;
    int digits = 0;
    for (*number = 0; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++) {
        if (++digits > 9)
            return false;
        *number = *number * 10 + (*in->at - '0');
    }
    if (negative)
        *number = -*number;
    return digits > 0;
}

static bool take_word(struct reader *in, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size))
        return false;
    in->at += size;
    return true;
}

static bool skip_value(struct reader *in) {
    struct text text;
    long number;
    skip_space(in);
    if (in->at < in->end && *in->at == '"')
        return take_text(in, &text);
    return take_word(in, "true") || take_word(in, "false") || take_word(in, "null") ||
           take_number(in, &number);
}

static bool take_operation(struct reader *in, enum operation *op) {
    static const char *const names[] = {[OP_MESH] = "mesh",     [OP_START] = "start",
                                        [OP_STOP] = "stop",     [OP_SIGNAL] = "signal",
                                        [OP_EXIT] = "exit",     [OP_PING] = "ping"};
    struct text text;
    if (!take_text(in, &text))
        return false;
    for (enum operation i = OP_MESH; i <= OP_PING; i++)
        if (equal(text, names[i])) {
            *op = i;
            return true;
        }
    return false;
}

static bool take_member(struct reader *in, struct command *command) {
    struct text key;
    long number;
    if (!take_text(in, &key) || !take(in, ':'))
        return false;
    if (equal(key, "op"))
        return take_operation(in, &command->op);
    if (equal(key, "signal")) {
        if (!take_number(in, &number) || number < 1 || number > 64)
            return false;
        command->signal = (int)number;
        return true;
    }
    if (equal(key, "grace_ms")) {
        if (!take_number(in, &number) || number < 0 || number > 86400000)
            return false;
        command->grace_ms = (int)number;
        return true;
    }
    return skip_value(in);
}

bool command_parse(const char *line, size_t size, struct command *command) {
    struct reader in = {line, line + size};
    *command = (struct command){OP_NONE, 0, -1};
    if (!take(&in, '{'))
        return false;
    do {
        if (!take_member(&in, command))
            return false;
    } while (take(&in, ','));
    if (!take(&in, '}'))
        return false;
    skip_space(&in);
    return in.at == in.end && command->op != OP_NONE &&
           (command->op != OP_SIGNAL || command->signal);
}

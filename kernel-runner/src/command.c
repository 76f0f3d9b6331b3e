/* The agent's commands: JSON objects of which the agent writes, and we read, one spelling only. */
#include "phalanx.h"

bool command_parse(const char *line, struct command *command) {
    static const char *const names[] = {"", "mesh", "start", "stop", "signal", "exit", "ping"};
    static const int members[] = {0, 1, 1, 3, 2, 1, 1};
    char name[8] = "";
    int end = 0;
    *command = (struct command){OP_NONE, 0, 0};
    int found = sscanf(line, "{\"op\":\"%7[a-z]\"%n,\"signal\":%2u%n,\"grace_ms\":%8u%n", name,
                       &end, &command->signal, &end, &command->grace_ms, &end);
    for (int op = OP_MESH; op <= OP_PING; op++)
        if (found == members[op] && !strcmp(name, names[op])) command->op = op;
    return command->op && !strcmp(line + end, "}") && (found < 2 || command->signal) &&
           command->signal <= 64 && command->grace_ms <= 86400000;
}

/* The only file of the smallest image: waits for SIGTERM, or as many seconds as the first argument
   says, and ends with the code that the second one says. With `--show` it prints its arguments and
   its environment first, one a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <unistd.h>

extern char **environ;

static void ended(int number) { _exit(number == SIGTERM ? 0 : 128 + number); }

int main(int argc, char **argv)
{
    signal(SIGTERM, ended);
    signal(SIGINT, ended);
    if (argc > 1 && strcmp(argv[1], "--show") == 0) {
        for (char **word = argv + 2; *word; word++)
            puts(*word);
        for (char **entry = environ; *entry; entry++)
            puts(*entry);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (argc > 1)
        sleep((unsigned) atoi(argv[1]));
    else
        for (;;)
            pause();
    return argc > 2 ? atoi(argv[2]) : 0;
}

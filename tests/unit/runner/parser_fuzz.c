/* Throws mutated samples at the runner's two parsers; the sanitizers say what is wrong, and the
 * guilty input is left in the file "guilty".
 * Usage: parser_fuzz SEED ROUNDS SAMPLE... ; a sample is a file of a message, or NAME.conf */
#include "phalanx.h"

#include <sanitizer/common_interface_defs.h>

#define ROOM 4096

static const char alphabet[] = "{}[]\":,\\ \n=0129-aeopstx\t\x00\xff";
static char guilty[ROOM];
static size_t guilty_size;

static void tell(void) {
    FILE *file = fopen("guilty", "w");
    if (file) fwrite(guilty, 1, guilty_size, file);
    if (file) fclose(file);
}

static struct sample {
    bool is_conf;
    size_t size;
    char text[ROOM / 8];
} samples[64];

static void load(const char *path, struct sample *to) {
    FILE *file = fopen(path, "r");
    if (!file) exit(2);
    to->is_conf = strstr(path, ".conf");
    to->size = fread(to->text, 1, sizeof to->text, file);
    fclose(file);
}

static size_t mutate(char *text, size_t size) {
    for (int changes = rand() % 8; changes > 0; changes--) {
        size_t at = size ? (size_t)rand() % size : 0;
        char mark = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        switch (rand() % 4) {
        case 0: /* replace */
            if (size) text[at] = mark;
            break;
        case 1: /* insert */
            if (size + 1 < ROOM) {
                memmove(text + at + 1, text + at, size - at);
                text[at] = mark;
                size++;
            }
            break;
        case 2: /* cut */
            size = at;
            break;
        default: /* double */
            if (size * 2 < ROOM) {
                memcpy(text + size, text, size);
                size *= 2;
            }
        }
    }
    return size;
}

static long throw_at_parser(bool is_conf) {
    struct command command;
    long accepted = 0;
    /* Exactly as much memory as there is text, so that one byte too far is seen. */
    char *exact = malloc(guilty_size + 1);
    memcpy(exact, guilty, guilty_size);
    exact[guilty_size] = 0;
    if (is_conf) accepted = !conf_parse(exact, guilty_size);
    else accepted = command_parse(exact, &command);
    for (int p = 0; is_conf && p < conf.peer_count; p++)
        if (strlen(conf.peers[p].name) > guilty_size) abort();
    free(exact);
    return accepted;
}

int main(int argc, char **argv) {
    int count = argc - 3;
    if (count < 1 || count > 64) return 2;
    for (int i = 0; i < count; i++) load(argv[3 + i], &samples[i]);
    __sanitizer_set_death_callback(tell);
    srand((unsigned)atoi(argv[1]));
    long accepted = 0, rounds = atol(argv[2]);
    for (long i = 0; i < rounds; i++) {
        const struct sample *sample = &samples[i % count];
        memcpy(guilty, sample->text, sample->size);
        guilty_size = mutate(guilty, sample->size);
        accepted += throw_at_parser(sample->is_conf);
    }
    printf("%ld\n", accepted);
    return 0;
}

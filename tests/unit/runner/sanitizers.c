/* Options of the sanitizers, inside of the program: what a container's command gets as environment
 * is the test's. Leaks are not looked for: PID 1 lets nobody trace it, and ends with all of its
 * memory. */
const char *__asan_default_options(void);

const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }

/* crypt() for the server: musl-tools ships no libcrypt, and password logins are compiled out. */
char *crypt(const char *key, const char *salt);

char *crypt(const char *key, const char *salt) {
    (void)key;
    (void)salt;
    return 0;
}

/* The ssh port and its door. A peer of the mesh check says "PHXPING\n" and is answered here, so
 * that a check costs no ssh server; everybody else gets one of their own. Clients that wait for the
 * server's banner say nothing, and are let in after a moment. */
#include "phalanx.h"

#include <net/if.h>
#include <sys/ioctl.h>

#define SILENCE_MS 200

struct guest guests[DOOR_LIMIT];
int guest_count;

bool address_on_interface(const char *address, const char *interface) {
    struct ifreq request = {.ifr_addr.sa_family = AF_INET};
    struct sockaddr_in *has = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    bool known = !ioctl(fd, SIOCGIFADDR, &request);
    close(fd);
    return known && has->sin_addr.s_addr == inet_addr(address);
}

static int listen_with(sa_family_t family, int port) {
    /* What IPv4 has in an address is how one of IPv6 begins. */
    struct sockaddr_in6 all = {.sin6_family = family, .sin6_port = htons((uint16_t)port)};
    int yes = 1, no = 0, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (!bind(fd, (struct sockaddr *)&all, sizeof all) && !listen(fd, 1024)) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

int listen_everywhere(int port) {
    int fd = listen_with(AF_INET6, port);
    return fd < 0 && errno != EADDRINUSE ? listen_with(AF_INET, port) : fd;
}

void door_accept(int listener) {
    while (guest_count < DOOR_LIMIT) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* the server's reads wait */
        if (fd < 0) return;
        guests[guest_count++] = (struct guest){fd, clock_ms()};
    }
}

int64_t door_deadline(void) {
    int64_t first = -1;
    for (int i = 0; i < guest_count; i++)
        if (first < 0 || guests[i].since + SILENCE_MS < first) first = guests[i].since + SILENCE_MS;
    return first;
}

void door_look(int guest, int64_t now, bool readable) {
    int fd = guests[guest].fd;
    bool patience = now - guests[guest].since < SILENCE_MS;
    if (!readable && patience) return;
    char word[8];
    ssize_t got = recv(fd, word, sizeof word, MSG_PEEK | MSG_DONTWAIT);
    bool ping = got > 0 && !memcmp(word, "PHXPING\n", (size_t)got);
    if (ping && got < (ssize_t)sizeof word && patience) return;
    if (ping && got == sizeof word) {
        recv(fd, word, sizeof word, MSG_DONTWAIT);
        send(fd, "PHXPONG\n", sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (got > 0 || (got < 0 && errno == EAGAIN)) {
        spawn_ssh_server(fd);
    }
    close(fd);
    guests[guest] = guests[--guest_count];
}

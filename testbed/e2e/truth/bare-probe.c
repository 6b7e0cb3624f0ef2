/* bare-probe: the system calls of a probe and nothing else, as the yardstick for what a probe costs.
 *
 *   bare-probe serve PORT                         answers over TCP and UDP, one peer, for ever
 *   bare-probe ask ADDRESS PORT ROUNDS PACE_MS BURST STAMP
 *
 * Each round: BURST round trips of 32 bytes over TCP, one after the other; then, if STAMP is 1, one of 148 bytes over UDP, whose
 * departure and arrival are stamped by the kernel at both ends. `ask` prints the CPU time that it used, in nanoseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PING = 32, DATAGRAM = 148 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *ip, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
        fail(ip);
    return address;
}

static int stamped_socket(void)
{
    int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    int flags = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY;
    if (socket_ < 0 || setsockopt(socket_, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
        fail("SO_TIMESTAMPING");
    return socket_;
}

/* Receives a message with its stamp; from the error queue, the stamp of one that left. */
static ssize_t receive(int socket_, char *data, size_t length, struct sockaddr_in *from, int flags)
{
    char control[256];
    struct iovec vector = {data, length};
    struct msghdr message = {from, from ? sizeof *from : 0, &vector, 1, control, sizeof control, 0};
    return recvmsg(socket_, &message, flags);
}

static void exactly(int connection, char *data, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = read(connection, data + done, length - done);
        if (got <= 0)
            exit(got < 0); /* the other side has ended */
        done += (size_t)got;
    }
}

static void serve(const char *port)
{
    struct sockaddr_in any = address("0.0.0.0", port), from;
    int listener = socket(AF_INET, SOCK_STREAM, 0), datagrams = stamped_socket(), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 1) ||
        bind(datagrams, (struct sockaddr *)&any, sizeof any))
        fail("bind");
    int connection = accept(listener, NULL, NULL);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char data[256];
    for (;;) {
        struct pollfd wait[] = {{connection, POLLIN, 0}, {datagrams, POLLIN, 0}};
        poll(wait, 2, -1);
        if (wait[0].revents) {
            exactly(connection, data, PING);
            if (write(connection, data, PING) != PING)
                fail("write");
        }
        if (wait[1].revents & POLLIN) {
            ssize_t got = receive(datagrams, data, sizeof data, &from, 0);
            sendto(datagrams, data, (size_t)got, 0, (struct sockaddr *)&from, sizeof from);
        }
        if (wait[1].revents)
            receive(datagrams, data, sizeof data, NULL, MSG_ERRQUEUE);
    }
}

static void ask(char **arguments)
{
    struct sockaddr_in to = address(arguments[0], arguments[1]);
    int rounds = atoi(arguments[2]), pace = atoi(arguments[3]), burst = atoi(arguments[4]), stamp = atoi(arguments[5]), on = 1;
    int connection = socket(AF_INET, SOCK_STREAM, 0), datagrams = stamped_socket();
    struct timeval deadline = {5, 0};
    setsockopt(datagrams, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(connection, (struct sockaddr *)&to, sizeof to) || connect(datagrams, (struct sockaddr *)&to, sizeof to))
        fail("connect");
    char data[256] = {0};
    struct timespec time, between = {pace / 1000, pace % 1000 * 1000000L};
    for (int round = 0; round < rounds; round++) {
        for (int ping = 0; ping < burst; ping++) {
            clock_gettime(CLOCK_MONOTONIC, &time);
            if (write(connection, data, PING) != PING)
                fail("write");
            exactly(connection, data, PING);
            clock_gettime(CLOCK_MONOTONIC, &time);
        }
        if (stamp) {
            send(datagrams, data, DATAGRAM, 0);
            receive(datagrams, data, sizeof data, NULL, MSG_ERRQUEUE);
            if (receive(datagrams, data, sizeof data, NULL, 0) != DATAGRAM)
                fail("recvmsg");
        }
        nanosleep(&between, NULL);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    printf("%lld\n", time.tv_sec * 1000000000LL + time.tv_nsec);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "serve"))
        serve(argv[2]);
    else if (argc == 8 && !strcmp(argv[1], "ask"))
        ask(argv + 2);
    else
        return fprintf(stderr, "usage: bare-probe serve PORT | bare-probe ask ADDRESS PORT ROUNDS PACE_MS BURST STAMP\n"), 2;
    return 0;
}

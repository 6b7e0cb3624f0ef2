/* delay QUEUE MILLISECONDS [JITTER [LOG]]: holds every packet of an NFQUEUE for MILLISECONDS plus a random part of JITTER,
 * then lets it pass. Stands in for netem, which the kernels of small virtual machines lack. Order is kept: no packet overtakes.
 *
 * No program holds a packet exactly as long as it should: LOG gets a line for each IPv4 packet, which says what was done:
 *   ARRIVED HELD PROTOCOL SOURCE DESTINATION LENGTH
 * ARRIVED is the kernel's stamp of the packet's arrival, or else the time at which it came to this program, and HELD the time
 * from there to the packet's release, both in nanoseconds of the wall clock; LENGTH is that of the packet, in bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/ip.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

/* A power of two, so that the counters may wrap. Packets beyond it pass at once, as a full queue of the kernel does. */
#define CAPACITY 65536
/* Bounds the log; what passes later is held all the same. */
#define MAX_LINES 1000000

struct held {
    uint32_t id;
    double release_at;  /* milliseconds on the monotonic clock */
    int64_t arrived;    /* nanoseconds on the wall clock */
    struct iphdr header; /* all zero, if it is not known */
};

static struct held packets[CAPACITY];
static unsigned first, next; /* packets first..next-1, modulo CAPACITY, are held */
static double delay, jitter;
static FILE *record;
static unsigned lines;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static int64_t wall_clock(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int hold(struct nfq_q_handle *queue, struct nfgenmsg *message, struct nfq_data *data, void *unused)
{
    (void)message;
    (void)unused;
    uint32_t id = ntohl(nfq_get_msg_packet_hdr(data)->packet_id);
    if (next - first >= CAPACITY)
        return nfq_set_verdict(queue, id, NF_ACCEPT, 0, NULL);
    double release_at = now() + delay + jitter * drand48();
    if (next != first && packets[(next - 1) % CAPACITY].release_at > release_at)
        release_at = packets[(next - 1) % CAPACITY].release_at;
    struct held held = {.id = id, .release_at = release_at, .arrived = wall_clock()};
    struct timeval stamp;
    if (nfq_get_timestamp(data, &stamp) == 0)
        held.arrived = stamp.tv_sec * INT64_C(1000000000) + stamp.tv_usec * INT64_C(1000);
    unsigned char *packet;
    if (nfq_get_payload(data, &packet) >= (int)sizeof held.header)
        memcpy(&held.header, packet, sizeof held.header);
    packets[next++ % CAPACITY] = held;
    return 0;
}

static void release(struct nfq_q_handle *queue, const struct held *held)
{
    char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
    /* Within the call the packet goes all its way, to the program that waits for it. */
    int64_t released = wall_clock();
    nfq_set_verdict(queue, held->id, NF_ACCEPT, 0, NULL);
    if (!record || held->header.version != 4 || lines++ >= MAX_LINES)
        return;
    inet_ntop(AF_INET, &held->header.saddr, from, sizeof from);
    inet_ntop(AF_INET, &held->header.daddr, to, sizeof to);
    fprintf(record, "%lld %lld %u %s %s %u\n", (long long)held->arrived, (long long)(released - held->arrived),
            held->header.protocol, from, to, ntohs(held->header.tot_len));
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: delay QUEUE MILLISECONDS [JITTER [LOG]]\n");
        return 2;
    }
    delay = atof(argv[2]);
    jitter = argc > 3 ? atof(argv[3]) : 0;
    if (argc > 4) {
        record = fopen(argv[4], "w");
        if (!record) {
            perror(argv[4]);
            return 1;
        }
        /* Whoever ends this program does so without a warning. */
        setvbuf(record, NULL, _IOLBF, 1 << 12);
    }

    struct nfq_handle *handle = nfq_open();
    if (!handle) {
        perror("nfq_open");
        return 1;
    }
    struct nfq_q_handle *queue = nfq_create_queue(handle, atoi(argv[1]), hold, NULL);
    if (!queue) {
        perror("nfq_create_queue");
        return 1;
    }
    /* The verdict needs only the packet's number; the log needs the beginning of the packet. */
    nfq_set_mode(queue, record ? NFQNL_COPY_PACKET : NFQNL_COPY_META, sizeof(struct iphdr));
    nfq_set_queue_maxlen(queue, CAPACITY);
    int socket = nfq_fd(handle), size = 4 << 20;
    setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);

    static char buffer[65536];
    struct pollfd wait = {socket, POLLIN, 0};
    for (;;) {
        struct timespec timeout, *until_release = NULL; /* for ever, when nothing is held */
        if (next != first) {
            double left = packets[first % CAPACITY].release_at - now();
            if (left < 0)
                left = 0;
            timeout.tv_sec = (time_t)(left / 1e3);
            timeout.tv_nsec = (long)((left - timeout.tv_sec * 1e3) * 1e6);
            until_release = &timeout;
        }
        ppoll(&wait, 1, until_release, NULL);
        if (wait.revents & POLLIN) {
            int length = recv(socket, buffer, sizeof buffer, MSG_DONTWAIT);
            if (length > 0)
                nfq_handle_packet(handle, buffer, length);
        }
        while (next != first && packets[first % CAPACITY].release_at <= now())
            release(queue, &packets[first++ % CAPACITY]);
    }
}

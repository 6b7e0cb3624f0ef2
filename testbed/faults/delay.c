/* delay QUEUE MILLISECONDS [JITTER]: holds every packet of an NFQUEUE for MILLISECONDS plus a random part of JITTER, then
 * lets it pass. Stands in for netem, which the kernels of small virtual machines lack. Order is kept: no packet overtakes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

/* A power of two, so that the counters may wrap. Packets beyond it pass at once, as a full queue of the kernel does. */
#define CAPACITY 65536

struct held {
    uint32_t id;
    double release_at; /* milliseconds on the monotonic clock */
};

static struct held packets[CAPACITY];
static unsigned first, next; /* packets first..next-1, modulo CAPACITY, are held */
static double delay, jitter;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
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
    packets[next++ % CAPACITY] = (struct held){id, release_at};
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: delay QUEUE MILLISECONDS [JITTER]\n");
        return 2;
    }
    delay = atof(argv[2]);
    jitter = argc > 3 ? atof(argv[3]) : 0;

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
    /* The verdict needs only the packet's number, not the packet. */
    nfq_set_mode(queue, NFQNL_COPY_META, 0);
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
            nfq_set_verdict(queue, packets[first++ % CAPACITY].id, NF_ACCEPT, 0, NULL);
    }
}

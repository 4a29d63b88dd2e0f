#include "net/proxy/control.h"

#include "aio/child.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"
#include "net/proxy/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ADOPT_MS = 2000,
    GONE_POLL_MS = 10, /* between looks at the lock of a proxy whose connection has ended */
    GONE_POLLS = 50,   /* after which it lives on without us: connect again */
    PAUSE_MAX_MS = 5000,
    STEADY_MS = 5000, /* a proxy that lived this long starts the pauses anew */
};

static const char lock_name[] = "proxy.lock";
static const char sock_name[] = "proxy.sock";

struct listener {
    uint32_t id;
    int fd;
};

/* What is known of a slot of the board that a backend has. */
struct owner {
    uint64_t backend; /* 0: free */
    uint64_t drain;   /* the first snapshot in which it takes no requests any more; 0: it takes them */
    bool present;     /* the last snapshot has it */
};

struct zl_proxy {
    struct zl_proxy_options o;
    char *program;
    int sock;
    struct zl_watch *watch;
    struct zl_timer *timer;
    struct zl_child *child;
    pid_t pid;
    uint64_t started_ms;
    unsigned failures, polls;
    bool told_down;

    struct listener *listeners;
    unsigned nlisteners, listeners_cap;
    int board_fd, snapshot_fd;
    struct zl_px_board *board;
    uint64_t number;
    struct owner owners[ZL_PX_SLOTS];
};

static void readable(void *arg, int events);

/* ---- the lock and the socket ---- */

/* The lock, held; -EWOULDBLOCK while a proxy lives. */
static int try_lock(int data_dir)
{
    zl_auto_close int fd = zl_openat(data_dir, lock_name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

bool zl_proxy_running(int data_dir)
{
    zl_auto_close int fd = try_lock(data_dir);
    return fd == -EWOULDBLOCK;
}

static void sock_address(int data_dir, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s", data_dir, sock_name);
}

static int connect_proxy(int data_dir)
{
    struct sockaddr_un sa;
    sock_address(data_dir, &sa);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

static int listen_control(int data_dir)
{
    struct sockaddr_un sa;
    sock_address(data_dir, &sa);
    zl_auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (unlinkat(data_dir, sock_name, 0) < 0 && errno != ENOENT)
        return -errno;
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || fchmodat(data_dir, sock_name, 0600, 0) < 0 ||
        listen(fd, 8) < 0)
        return -errno;
    return ZL_TAKE_FD(fd);
}

static void disconnect(struct zl_proxy *p)
{
    p->watch = zl_watch_free(p->watch);
    p->sock = zl_close(p->sock);
}

static int watch(struct zl_proxy *p)
{
    return zl_watch_new(p->o.loop, p->sock, ZL_READABLE, readable, p, &p->watch);
}

/* ---- feeding a proxy ---- */

static int send_all(struct zl_proxy *p)
{
    int r = zl_px_send_hello(p->sock, (uint64_t)getpid(), 0, p->number);
    if (r == 0)
        r = zl_px_send(p->sock, ZL_PX_BOARD, 0, 0, NULL, p->board_fd);
    for (unsigned i = 0; r == 0 && i < p->nlisteners; i++)
        r = zl_px_send(p->sock, ZL_PX_LISTENER, ZL_PX_R_ID, p->listeners[i].id, NULL, p->listeners[i].fd);
    if (r == 0 && p->snapshot_fd >= 0)
        r = zl_px_send(p->sock, ZL_PX_SNAPSHOT, 0, 0, NULL, p->snapshot_fd);
    return r;
}

/* Only reaps: that the proxy has ended is seen on its connection and its lock, as with an adopted one. */
static void exited(void *arg, int status)
{
    struct zl_proxy *p = arg;
    p->child = NULL;
    zl_log_info("the proxy's process has ended status=%#x", (unsigned)status);
}

static int start(struct zl_proxy *p, int lock_take, struct zl_err *err)
{
    zl_auto_close int lock = lock_take;
    zl_px_board_reset(p->board);
    zl_auto_close int control = listen_control(p->o.data_dir);
    if (control < 0)
        return zl_fail(err, control, "make the proxy's control socket");
    const struct zl_inside *in = p->o.inside;
    const struct zl_child_fd fds[] = { { 2, 2 },
                                       { in ? -EBADF : p->o.netns, 3 },
                                       { control, 4 },
                                       { lock, 5 },
                                       { in ? in->user : -EBADF, ZL_INSIDE_FD_USER },
                                       { in ? in->mnt : -EBADF, ZL_INSIDE_FD_MNT },
                                       { in ? in->net : -EBADF, ZL_INSIDE_FD_NET } };
    enum { PLAIN = 4 };
    const char *const argv[] = { "zl-inside", "enter", p->program, "zl-proxy", NULL };
    const char *log_level = getenv("ZLAYER_LOG");
    zl_auto_free char *env_log = log_level ? zl_xasprintf("ZLAYER_LOG=%s", log_level) : NULL;
    const char *const envp[] = { env_log, NULL };
    const struct zl_child_options child = {
        .path = in ? in->program : p->program,
        .argv = in ? argv : argv + 3,
        .envp = envp,
        .fds = fds,
        .nfds = in ? ZL_ARRAY_LEN(fds) : PLAIN,
        .session = true,
        .exited = exited,
        .arg = p,
    };
    p->child = zl_child_free(p->child);
    int r = zl_child_spawn(p->o.loop, &child, &p->child);
    if (r < 0)
        return zl_fail(err, r, "start %s", p->program);
    zl_phase("proxy.spawned");
    p->pid = zl_child_pid(p->child);
    p->started_ms = zl_clock_mono_ms();
    p->sock = connect_proxy(p->o.data_dir);
    r = p->sock < 0 ? p->sock : send_all(p);
    if (r == 0)
        r = watch(p);
    if (r < 0)
        return zl_fail(err, r, "hand the proxy what it serves");
    return 0;
}

static void down(struct zl_proxy *p, const char *text)
{
    if (!text == !p->told_down)
        return;
    p->told_down = text != NULL;
    if (p->o.down)
        p->o.down(p->o.arg, text);
}

static uint64_t pause_ms(const struct zl_proxy *p)
{
    if (p->failures <= 1)
        return 0;
    uint64_t ms = 50ull << ZL_MIN(p->failures, 8u);
    return ZL_MIN(ms, (uint64_t)PAUSE_MAX_MS);
}

/* The timer: the connection to the proxy has ended, and this finds out why and what follows. */
static void look(void *arg)
{
    struct zl_proxy *p = arg;
    struct zl_err err = { 0 };
    int lock = try_lock(p->o.data_dir);
    if (lock == -EWOULDBLOCK && ++p->polls < GONE_POLLS) {
        zl_timer_set(p->timer, GONE_POLL_MS);
        return;
    }
    int r;
    if (lock >= 0) {
        r = start(p, lock, &err);
    } else {
        p->sock = lock == -EWOULDBLOCK ? connect_proxy(p->o.data_dir) : lock;
        r = p->sock < 0 ? p->sock : send_all(p);
        if (r == 0)
            r = watch(p);
        if (r < 0)
            zl_fail(&err, r, "connect to the proxy again");
    }
    if (r == 0)
        return;
    zl_log_error("the proxy is down, trying again error=\"%s\"", err.text);
    disconnect(p);
    p->failures++;
    zl_timer_set(p->timer, pause_ms(p));
    down(p, err.text);
}

static void lost(struct zl_proxy *p)
{
    disconnect(p);
    p->polls = 0;
    if (zl_clock_mono_ms() - p->started_ms > STEADY_MS)
        p->failures = 0;
    p->failures++;
    zl_log_warn("the proxy has ended, starting another pid=%d", (int)p->pid);
    p->pid = 0;
    zl_timer_set(p->timer, pause_ms(p));
    if (p->failures > 3)
        down(p, "the proxy ends again and again");
}

static void readable(void *arg, int events)
{
    struct zl_proxy *p = arg;
    struct zl_px_in in;
    (void)events;
    int r = zl_px_receive(p->sock, &in);
    if (r == -EAGAIN)
        return;
    if (r < 0) {
        lost(p);
        return;
    }
    (void)zl_close(in.fd);
    switch (in.type) {
    case ZL_PX_HELLO:
        p->pid = (pid_t)in.pid;
        down(p, NULL);
        return;
    case ZL_PX_REFUSED:
        zl_log_error("the proxy refuses what it was given, and serves what it had reason=\"%s\"", in.text);
        return;
    case ZL_PX_EVENT:
        p->o.changed(p->o.arg);
        return;
    default:
        return;
    }
}

/* ---- adoption ---- */

static void keep_listener(struct zl_proxy *p, uint32_t id, int fd)
{
    for (unsigned i = 0; i < p->nlisteners; i++)
        if (p->listeners[i].id == id) {
            (void)zl_close(p->listeners[i].fd);
            p->listeners[i].fd = fd;
            return;
        }
    ZL_GROW(p->listeners, p->nlisteners, p->listeners_cap);
    p->listeners[p->nlisteners++] = (struct listener){ id, fd };
}

static int adopt_board(struct zl_proxy *p, int fd)
{
    struct zl_px_board *b = NULL;
    int r = zl_px_board_map(fd, &b);
    if (r < 0)
        return r;
    zl_px_board_unmap(p->board);
    (void)zl_close(p->board_fd);
    p->board = b;
    p->board_fd = fd;
    return 0;
}

/* What a snapshot says about slots, and what the board still has in flight besides. */
static int adopt_snapshot(struct zl_proxy *p, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size <= 0 || st.st_size > ZL_PX_SNAPSHOT_MAX)
        return -EBADMSG;
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    struct zl_px_view v;
    int r = zl_px_check(zl_str_n(bytes, (size_t)st.st_size), &v);
    if (r == 0) {
        p->number = v.header->number;
        for (uint32_t i = 0; i < v.header->nbackends; i++) {
            const struct zl_px_backend *b = &v.backends[i];
            bool draining = b->flags & ZL_PX_BACKEND_DRAINING;
            p->owners[b->slot] = (struct owner){ b->id, draining ? p->number : 0, true };
        }
        p->snapshot_fd = fd;
    }
    munmap(bytes, (size_t)st.st_size);
    return r;
}

static void adopt_slots(struct zl_proxy *p)
{
    uint32_t used = ZL_MIN(atomic_load(&p->board->slots_used), (uint32_t)ZL_PX_SLOTS);
    for (uint32_t i = 0; i < used; i++) {
        uint64_t id = atomic_load(&p->board->slot[i].backend);
        if (id && !p->owners[i].backend)
            p->owners[i] = (struct owner){ id, ZL_MAX(p->number, (uint64_t)1), false };
    }
}

static int fetch(struct zl_proxy *p, uint64_t deadline_ms, struct zl_err *err)
{
    int r = zl_px_send(p->sock, ZL_PX_FETCH, 0, 0, NULL, -EBADF);
    bool board = false, done = false;
    while (r >= 0 && !done) {
        uint64_t now = zl_clock_mono_ms();
        struct pollfd f = { .fd = p->sock, .events = POLLIN };
        if (now >= deadline_ms || poll(&f, 1, (int)(deadline_ms - now)) == 0)
            return zl_fail(err, ZL_E_TIMEOUT, "the running proxy does not answer");
        struct zl_px_in in;
        r = zl_px_receive(p->sock, &in);
        if (r < 0)
            break;
        if (in.type == ZL_PX_LISTENER && in.fd >= 0)
            keep_listener(p, (uint32_t)in.id, ZL_TAKE_FD(in.fd));
        else if (in.type == ZL_PX_BOARD && in.fd >= 0) {
            r = adopt_board(p, in.fd);
            board = r == 0;
            in.fd = r == 0 ? -EBADF : in.fd;
        } else if (in.type == ZL_PX_SNAPSHOT && in.fd >= 0) {
            r = adopt_snapshot(p, in.fd);
            in.fd = r == 0 ? -EBADF : in.fd;
        } else if (in.type == ZL_PX_HELLO)
            p->pid = (pid_t)in.pid;
        done = in.type == ZL_PX_FETCHED;
        (void)zl_close(in.fd);
    }
    if (r < 0)
        return zl_fail(err, r, "take the running proxy over");
    /* A proxy that came up just before its agent ended may have got nothing yet. */
    return board ? 0 : send_all(p);
}

static int adopt(struct zl_proxy *p, uint64_t deadline_ms, struct zl_err *err)
{
    p->sock = connect_proxy(p->o.data_dir);
    if (p->sock < 0)
        return zl_fail(err, p->sock, "connect to the running proxy");
    p->started_ms = zl_clock_mono_ms();
    int r = zl_px_send_hello(p->sock, (uint64_t)getpid(), 0, 0);
    r = r < 0 ? zl_fail(err, r, "greet the running proxy") : fetch(p, deadline_ms, err);
    if (r == 0) {
        adopt_slots(p);
        r = watch(p);
    }
    if (r < 0)
        disconnect(p);
    return r;
}

int zl_proxy_open(const struct zl_proxy_options *o, struct zl_proxy **ret, bool *ret_adopted, struct zl_err *err)
{
    struct zl_proxy *p = zl_xcalloc(1, sizeof *p);
    p->o = *o;
    p->program = zl_xstrdup(o->program);
    p->sock = p->board_fd = p->snapshot_fd = -EBADF;
    p->o.data_dir = fcntl(o->data_dir, F_DUPFD_CLOEXEC, 3);
    p->o.netns = o->netns < 0 ? -EBADF : fcntl(o->netns, F_DUPFD_CLOEXEC, 3);
    p->timer = zl_timer_new(o->loop, look, p);
    int r = zl_px_board_make(&p->board_fd, &p->board);
    if (r < 0) {
        zl_proxy_free(p);
        return zl_fail(err, r, "make the proxy's board");
    }
    uint64_t deadline = zl_clock_mono_ms() + ADOPT_MS;
    for (;;) {
        int lock = try_lock(p->o.data_dir);
        *ret_adopted = lock == -EWOULDBLOCK;
        if (lock >= 0)
            r = start(p, lock, err);
        else if (*ret_adopted)
            r = adopt(p, deadline, err);
        else
            r = zl_fail(err, lock, "lock %s", lock_name);
        /* A proxy on its way out holds its lock a little longer than its socket. */
        if (r == 0 || !*ret_adopted || zl_clock_mono_ms() > deadline)
            break;
        (void)poll(NULL, 0, GONE_POLL_MS);
    }
    if (r < 0) {
        zl_proxy_free(p);
        return zl_wrap(err, r, "proxy");
    }
    *ret = p;
    return 0;
}

struct zl_proxy *zl_proxy_free(struct zl_proxy *p)
{
    if (!p)
        return NULL;
    disconnect(p);
    zl_child_free(p->child);
    zl_timer_free(p->timer);
    for (unsigned i = 0; i < p->nlisteners; i++)
        (void)zl_close(p->listeners[i].fd);
    free(p->listeners);
    zl_px_board_unmap(p->board);
    (void)zl_close(p->board_fd);
    (void)zl_close(p->snapshot_fd);
    (void)zl_close(p->o.data_dir);
    (void)zl_close(p->o.netns);
    free(p->program);
    free(p);
    return NULL;
}

struct zl_proxy *zl_proxy_quit(struct zl_proxy *p, unsigned timeout_ms)
{
    if (!p)
        return NULL;
    /* One that does not even read its socket is not waited for. */
    bool asked = p->sock >= 0 && zl_px_send(p->sock, ZL_PX_QUIT, 0, 0, NULL, -EBADF) == 0;
    uint64_t deadline = zl_clock_mono_ms() + (asked ? timeout_ms : 0);
    bool killed = false;
    while (zl_proxy_running(p->o.data_dir)) {
        if (zl_clock_mono_ms() > deadline) {
            if (killed || p->pid <= 0)
                break;
            (void)kill(p->pid, SIGKILL);
            killed = true;
            deadline += 1000;
        }
        (void)poll(NULL, 0, GONE_POLL_MS);
    }
    if (p->child)
        (void)waitpid(zl_child_pid(p->child), NULL, WNOHANG);
    (void)unlinkat(p->o.data_dir, sock_name, 0);
    return zl_proxy_free(p);
}

/* ---- listeners ---- */

int zl_proxy_listen(struct zl_proxy *p, uint32_t id, int fd_take, struct zl_err *err)
{
    if (fd_take < 0)
        return zl_fail(err, ZL_E_INVALID, "no socket for listener %u", id);
    if (p->nlisteners >= ZL_PX_LISTENERS_MAX) {
        (void)zl_close(fd_take);
        return zl_fail(err, ZL_E_LIMIT, "more than %d listeners", ZL_PX_LISTENERS_MAX);
    }
    keep_listener(p, id, fd_take);
    /* Without a connection the successor gets it with everything else. */
    if (p->sock >= 0 && zl_px_send(p->sock, ZL_PX_LISTENER, ZL_PX_R_ID, id, NULL, fd_take) < 0)
        lost(p);
    return 0;
}

int zl_proxy_listener(const struct zl_proxy *p, uint32_t id)
{
    for (unsigned i = 0; i < p->nlisteners; i++)
        if (p->listeners[i].id == id)
            return p->listeners[i].fd;
    return -ENOENT;
}

void zl_proxy_each_listener(const struct zl_proxy *p, void (*fn)(void *arg, uint32_t id, int fd), void *arg)
{
    for (unsigned i = 0; i < p->nlisteners; i++)
        fn(arg, p->listeners[i].id, p->listeners[i].fd);
}

void zl_proxy_unlisten(struct zl_proxy *p, uint32_t id)
{
    for (unsigned i = 0; i < p->nlisteners; i++) {
        if (p->listeners[i].id != id)
            continue;
        int fd = p->listeners[i].fd;
        p->listeners[i] = p->listeners[--p->nlisteners];
        if (p->sock >= 0 && zl_px_send(p->sock, ZL_PX_DROP, ZL_PX_R_ID, id, NULL, -EBADF) < 0)
            lost(p);
        /* The proxy closes it once no thread knows it, which takes its time; the port is free now. */
        (void)shutdown(fd, SHUT_RD);
        (void)zl_close(fd);
        return;
    }
}

/* ---- snapshots and backends ---- */

static int find_owner(const struct zl_proxy *p, uint64_t backend)
{
    uint32_t used = ZL_MIN(atomic_load(&p->board->slots_used), (uint32_t)ZL_PX_SLOTS);
    for (uint32_t i = 0; backend && i < used; i++)
        if (p->owners[i].backend == backend)
            return (int)i;
    return -ENOENT;
}

static bool slot_is_drained(const struct zl_proxy *p, uint32_t i)
{
    const struct owner *o = &p->owners[i];
    return o->drain && zl_px_board_applied(p->board, o->drain) && atomic_load(&p->board->slot[i].in_flight) == 0;
}

static int take_slot(struct zl_proxy *p, uint64_t backend)
{
    for (uint32_t i = 0; i < ZL_PX_SLOTS; i++) {
        struct owner *o = &p->owners[i];
        if (o->backend && (o->present || !slot_is_drained(p, i)))
            continue;
        *o = (struct owner){ backend, 0, true };
        if (atomic_load(&p->board->slots_used) <= i)
            atomic_store(&p->board->slots_used, i + 1);
        return (int)i;
    }
    return -ENOSPC;
}

static int give_slots(struct zl_proxy *p, const struct zl_px_def *def, uint64_t number, uint32_t *slots)
{
    unsigned n = 0;
    uint32_t used = ZL_MIN(atomic_load(&p->board->slots_used), (uint32_t)ZL_PX_SLOTS);
    for (uint32_t i = 0; i < used; i++)
        p->owners[i].present = false;
    for (unsigned s = 0; s < def->nservices; s++) {
        for (unsigned b = 0; b < def->services[s].nbackends; b++) {
            const struct zl_px_backend_def *d = &def->services[s].backends[b];
            int slot = find_owner(p, d->id);
            if (slot < 0)
                slot = take_slot(p, d->id);
            if (slot < 0)
                return slot;
            struct owner *o = &p->owners[slot];
            o->present = true;
            if (!d->draining)
                o->drain = 0;
            else if (!o->drain)
                o->drain = number;
            slots[n++] = (uint32_t)slot;
        }
    }
    used = ZL_MIN(atomic_load(&p->board->slots_used), (uint32_t)ZL_PX_SLOTS);
    for (uint32_t i = 0; i < used; i++)
        if (p->owners[i].backend && !p->owners[i].present && !p->owners[i].drain)
            p->owners[i].drain = number;
    return 0;
}

int zl_proxy_publish(struct zl_proxy *p, const struct zl_px_def *def, struct zl_err *err)
{
    size_t n = 0;
    for (unsigned s = 0; s < def->nservices; s++)
        n += def->services[s].nbackends;
    if (n > ZL_PX_SLOTS)
        return zl_fail(err, ZL_E_LIMIT, "more than %d backends", ZL_PX_SLOTS);
    zl_auto_free uint32_t *slots = zl_xcalloc(n + 1, sizeof *slots);
    zl_auto_free struct owner *before = zl_xmalloc(sizeof p->owners);
    memcpy(before, p->owners, sizeof p->owners);
    zl_auto_buf blob = ZL_BUF_INIT;
    uint64_t number = p->number + 1;
    int r = give_slots(p, def, number, slots);
    if (r == 0)
        r = zl_px_write(def, number, slots, &blob);
    int fd = r == 0 ? zl_sealed_memfd("zlayer-snapshot", blob.p, blob.n) : r;
    if (fd < 0) {
        memcpy(p->owners, before, sizeof p->owners);
        return zl_fail(err, fd, "write the proxy's snapshot");
    }
    (void)zl_close(p->snapshot_fd);
    p->snapshot_fd = fd;
    p->number = number;
    if (p->sock >= 0 && zl_px_send(p->sock, ZL_PX_SNAPSHOT, 0, 0, NULL, fd) < 0)
        lost(p);
    return 0;
}

uint64_t zl_proxy_number(const struct zl_proxy *p)
{
    return p->number;
}

bool zl_proxy_applied(const struct zl_proxy *p, uint64_t number)
{
    return zl_px_board_applied(p->board, number);
}

bool zl_proxy_drained(const struct zl_proxy *p, uint64_t backend)
{
    int slot = find_owner(p, backend);
    return slot < 0 || slot_is_drained(p, (uint32_t)slot);
}

int zl_proxy_backend(const struct zl_proxy *p, uint64_t backend, struct zl_proxy_backend *ret)
{
    int slot = find_owner(p, backend);
    if (slot < 0)
        return slot;
    const struct zl_px_slot *s = &p->board->slot[slot];
    memset(ret, 0, sizeof *ret);
    if (atomic_load(&s->backend) != backend) /* the proxy has not got to it yet */
        return 0;
    uint32_t health = atomic_load(&s->health);
    *ret = (struct zl_proxy_backend){
        .requests = atomic_load(&s->requests),
        .failures = atomic_load(&s->failures),
        .changed_ms = atomic_load(&s->changed_ms),
        .in_flight = atomic_load(&s->in_flight),
        .consecutive = atomic_load(&s->consecutive),
        .health =
            health == ZL_PX_HEALTH_OK || health == ZL_PX_HEALTH_BAD ? (enum zl_px_health)health : ZL_PX_HEALTH_UNKNOWN,
    };
    return 0;
}

pid_t zl_proxy_pid(const struct zl_proxy *p)
{
    return p->pid;
}

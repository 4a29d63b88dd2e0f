#include "shim/log.h"

#include "base/clock.h"
#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The number behind "log.", or 0. */
static uint64_t generation_of(const char *name)
{
    uint64_t g = 0;
    struct zl_str s = zl_str(name);
    if (!zl_str_starts(s, ZL_STR("log.")) || zl_parse_u64(zl_str_n(s.p + 4, s.n - 4), 1, UINT64_MAX - 1, &g) < 0)
        return 0;
    return g;
}

static uint64_t last_generation(int dir)
{
    uint64_t last = 0;
    int fd = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL)
        last = ZL_MAX(last, generation_of(e->d_name));
    if (d)
        closedir(d);
    return last;
}

int shim_log_open(struct shim_log *l, int dir, uint64_t max_bytes, unsigned max_files)
{
    struct stat st;
    l->dir = dir;
    l->max_bytes = ZL_MAX(max_bytes ? max_bytes : UINT64_C(16) << 20, UINT64_C(4096));
    l->max_files = ZL_MAX(max_files ? max_files : 4u, 2u);
    l->streams[0].name = "stdout";
    l->streams[1].name = "stderr";
    l->generation = last_generation(dir) + 1;
    l->fd = zl_openat(dir, "log", O_WRONLY | O_CREAT | O_APPEND, 0640);
    if (l->fd < 0)
        return l->fd;
    l->size = fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return 0;
}

/* The new file first: without room for it the old one is simply written on. */
static void rotate(struct shim_log *l)
{
    char ended[40];
    zl_auto_close int fd = zl_openat(l->dir, "log.new", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0640);
    if (fd < 0)
        return;
    snprintf(ended, sizeof ended, "log.%llu", (unsigned long long)l->generation);
    if (renameat(l->dir, "log", l->dir, ended) < 0)
        return;
    if (renameat(l->dir, "log.new", l->dir, "log") < 0) {
        (void)renameat(l->dir, ended, l->dir, "log");
        return;
    }
    if (l->generation >= l->max_files - 1) {
        snprintf(ended, sizeof ended, "log.%llu", (unsigned long long)(l->generation - l->max_files + 1));
        (void)unlinkat(l->dir, ended, 0);
    }
    l->generation++;
    zl_close(l->fd);
    l->fd = ZL_TAKE_FD(fd);
    l->size = 0;
}

/* Writes whole lines or, when the disk takes fewer, as many as it takes; returns the bytes of lines that are there. */
static size_t write_lines(struct shim_log *l, const char *p, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t w = write(l->fd, p + done, n - done);
        if (w <= 0 && errno != EINTR)
            break;
        done += w > 0 ? (size_t)w : 0;
    }
    if (done < n) {
        const char *end = done ? memrchr(p, '\n', done) : NULL;
        size_t whole = end ? (size_t)(end + 1 - p) : 0;
        if (whole < done && ftruncate(l->fd, (off_t)(l->size + whole)) < 0)
            whole = done; /* half a line stays; a reader takes it for a short one */
        done = whole;
    }
    l->size += done;
    return done;
}

static uint64_t count_lines(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (const char *end = p + n; p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        lines++;
    return lines;
}

static void flush(struct shim_log *l)
{
    size_t n = l->batched;
    l->batched = 0;
    if (n == 0)
        return;
    if (l->size > 0 && l->size + n > l->max_bytes)
        rotate(l);
    if (l->dropped) {
        char marker[160], time[ZL_TIME_TEXT_SIZE];
        int m =
            snprintf(marker, sizeof marker, "%s stderr F [zlayer: the disk was full, %llu lines are missing here]\n",
                     zl_time_text_ns(zl_clock_wall_ns(), time), (unsigned long long)l->dropped);
        if (write_lines(l, marker, (size_t)m) != (size_t)m) {
            l->dropped += count_lines(l->batch, n);
            return;
        }
        l->dropped = 0;
    }
    size_t done = write_lines(l, l->batch, n);
    l->dropped += count_lines(l->batch + done, n - done);
}

static void emit(struct shim_log *l, const struct shim_log_stream *s, const char *time, char tag)
{
    char head[64];
    int h = snprintf(head, sizeof head, "%s %s %c ", time, s->name, tag);
    if (l->batched + (size_t)h + s->n + 1 > sizeof l->batch)
        flush(l);
    memcpy(l->batch + l->batched, head, (size_t)h);
    memcpy(l->batch + l->batched + h, s->part, s->n);
    l->batched += (size_t)h + s->n;
    l->batch[l->batched++] = '\n';
}

void shim_log_feed(struct shim_log *l, unsigned stream, struct zl_str bytes, uint64_t now_ms)
{
    struct shim_log_stream *s = &l->streams[stream];
    char time[ZL_TIME_TEXT_SIZE];
    zl_time_text_ns(zl_clock_wall_ns(), time);
    while (bytes.n) {
        const char *end = memchr(bytes.p, '\n', bytes.n);
        size_t line = end ? (size_t)(end - bytes.p) : bytes.n;
        size_t take = ZL_MIN(line, sizeof s->part - s->n);
        if (s->n == 0)
            s->since_ms = now_ms;
        memcpy(s->part + s->n, bytes.p, take);
        s->n += take;
        bytes.p += take;
        bytes.n -= take;
        if (take < line) { /* the buffer is full and the line goes on */
            emit(l, s, time, 'P');
            s->n = 0;
        } else if (end) {
            emit(l, s, time, 'F');
            s->n = 0;
            bytes.p++;
            bytes.n--;
        }
    }
    flush(l);
}

static void emit_part(struct shim_log *l, struct shim_log_stream *s)
{
    char time[ZL_TIME_TEXT_SIZE];
    emit(l, s, zl_time_text_ns(zl_clock_wall_ns(), time), 'P');
    s->n = 0;
}

int shim_log_tick(struct shim_log *l, uint64_t now_ms)
{
    int next = -1;
    for (unsigned i = 0; i < 2; i++) {
        struct shim_log_stream *s = &l->streams[i];
        if (s->n == 0)
            continue;
        uint64_t due = s->since_ms + SHIM_LOG_PART_MS;
        if (now_ms >= due)
            emit_part(l, s);
        else
            next = next < 0 ? (int)(due - now_ms) : ZL_MIN(next, (int)(due - now_ms));
    }
    flush(l);
    return next;
}

void shim_log_close(struct shim_log *l)
{
    for (unsigned i = 0; i < 2; i++)
        if (l->streams[i].n)
            emit_part(l, &l->streams[i]);
    flush(l);
    l->fd = zl_close(l->fd);
}

void shim_log_give_way(int dir)
{
    enum { ROOM = 32768 };
    char tail[4096];
    struct stat st;
    zl_auto_close int fd = zl_openat(dir, "log", O_RDWR, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    off_t at = st.st_size > ROOM ? st.st_size - ROOM : 0;
    ssize_t n = pread(fd, tail, sizeof tail, at);
    const char *end = n > 0 && at > 0 ? memchr(tail, '\n', (size_t)n) : NULL;
    ZL_IGNORE(ftruncate(fd, end ? at + (end + 1 - tail) : at));
}

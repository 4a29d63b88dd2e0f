/*
 * The steps of unpacking an image, each alone, over and over the same layers: what no program that does them all can
 * beat. `floor STEP OUT FILE…` does one step for all files and prints its wall and processor time in milliseconds.
 *   hash      sha256 of each file
 *   inflate   gzip (libdeflate where all fits, otherwise isa-l) or zstd to memory that is thrown away
 *   place     the files of plain tars, each tar's in a folder of its own below OUT: folders, files with their bytes,
 *             owners, modes and times, links
 *   keep      each file as it is, below OUT
 *   sync      what is below OUT reaches the disk (syncfs)
 * The files are read once before, so that they come from memory. The tar reader is the least that does for the images
 * of the measurement (ustar with pax paths, made by Python): it checks nothing and is no example.
 */
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

struct file {
    unsigned char *p;
    size_t n;
};

static struct file map(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) < 0) {
        perror(path);
        exit(1);
    }
    unsigned char *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
    return (struct file){ p, (size_t)st.st_size };
}

static void hash(struct file f)
{
    unsigned char out[EVP_MAX_MD_SIZE];
    EVP_Digest(f.p, f.n, out, NULL, EVP_sha256(), NULL);
}

static void inflate_one(struct file f)
{
    static unsigned char out[256 << 10], all[4 << 20];
    if (f.n > 4 && f.p[0] == 0x28 && f.p[1] == 0xb5) {
        ZSTD_DStream *z = ZSTD_createDStream();
        ZSTD_inBuffer in = { f.p, f.n, 0 };
        while (in.pos < in.size) {
            ZSTD_outBuffer o = { out, sizeof out, 0 };
            if (ZSTD_isError(ZSTD_decompressStream(z, &o, &in)))
                exit(1);
        }
        ZSTD_freeDStream(z);
        return;
    }
    static struct libdeflate_decompressor *d;
    size_t size;
    if (!d)
        d = libdeflate_alloc_decompressor();
    if (f.n <= 1 << 20 && libdeflate_gzip_decompress(d, f.p, f.n, all, sizeof all, &size) == LIBDEFLATE_SUCCESS)
        return;
    static struct inflate_state s;
    isal_inflate_init(&s);
    s.crc_flag = ISAL_GZIP;
    s.next_in = f.p;
    s.avail_in = (uint32_t)f.n;
    do {
        s.next_out = out;
        s.avail_out = sizeof out;
        if (isal_inflate(&s) != ISAL_DECOMP_OK)
            exit(1);
    } while (s.block_state != ISAL_BLOCK_FINISH);
}

static long octal(const unsigned char *p, int n)
{
    char text[16] = "";
    memcpy(text, p, (size_t)n);
    return strtol(text, NULL, 8);
}

/* The value of a pax record, if the key is there. */
static void pax(const unsigned char *p, size_t n, const char *key, char *ret, size_t size)
{
    for (const unsigned char *at = p; at < p + n;) {
        size_t record = strtoul((const char *)at, NULL, 10);
        const char *space = memchr(at, ' ', n);
        if (!record || !space)
            return;
        size_t k = strlen(key);
        if (strncmp(space + 1, key, k) == 0 && space[1 + k] == '=')
            snprintf(ret, size, "%.*s", (int)((const char *)at + record - 1 - (space + 2 + k)), space + 2 + k);
        at += record;
    }
}

static void place(int root, struct file f)
{
    char path[4096], link[4096], long_path[4096] = "", long_link[4096] = "";
    for (size_t at = 0; at + 512 <= f.n && f.p[at];) {
        const unsigned char *h = f.p + at, *data = h + 512;
        size_t size = (size_t)octal(h + 124, 12);
        at += 512 + (size + 511) / 512 * 512;
        if (h[156] == 'x') {
            pax(data, size, "path", long_path, sizeof long_path);
            pax(data, size, "linkpath", long_link, sizeof long_link);
            continue;
        }
        snprintf(path, sizeof path, "%.155s%s%.100s", h + 345, h[345] ? "/" : "", h);
        if (long_path[0])
            memcpy(path, long_path, sizeof path);
        snprintf(link, sizeof link, "%.100s", h + 157);
        if (long_link[0])
            memcpy(link, long_link, sizeof link);
        long_path[0] = long_link[0] = 0;
        struct timespec t[2] = { { octal(h + 136, 12), 0 }, { octal(h + 136, 12), 0 } };
        mode_t mode = (mode_t)octal(h + 100, 8);
        if (h[156] == '5') {
            (void)mkdirat(root, path, mode);
        } else if (h[156] == '2') {
            (void)symlinkat(link, root, path);
            (void)utimensat(root, path, t, AT_SYMLINK_NOFOLLOW);
        } else if (h[156] == '1') {
            (void)linkat(root, link, root, path, 0);
        } else {
            int fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
            uid_t uid = (uid_t)octal(h + 108, 8), gid = (gid_t)octal(h + 116, 8);
            if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
                perror(path);
                exit(1);
            }
            if (uid || gid)
                (void)fchown(fd, uid, gid);
            futimens(fd, t);
            close(fd);
        }
    }
}

/* Layers are kept apart. */
static int layer(int root, int number)
{
    char name[16];
    snprintf(name, sizeof name, "layer%d", number);
    int fd = mkdirat(root, name, 0755) < 0 ? -1 : openat(root, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        perror(name);
        exit(1);
    }
    return fd;
}

static void keep(int root, struct file f, int number)
{
    char name[16];
    snprintf(name, sizeof name, "%d", number);
    int fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0 || write(fd, f.p, f.n) != (ssize_t)f.n) {
        perror(name);
        exit(1);
    }
    close(fd);
}

static double ms(struct timeval t)
{
    return (double)t.tv_sec * 1e3 + (double)t.tv_usec / 1e3;
}

int main(int argc, char **argv)
{
    struct timespec a, b;
    struct rusage before, after;
    if (argc < 3)
        return 2;
    const char *step = argv[1];
    umask(0);
    struct file *files = calloc((size_t)argc, sizeof *files);
    for (int i = 3; i < argc; i++)
        files[i] = map(argv[i]);
    int root = open(argv[2], O_RDONLY | O_DIRECTORY);
    getrusage(RUSAGE_SELF, &before);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 3; i < argc; i++) {
        if (!strcmp(step, "hash"))
            hash(files[i]);
        else if (!strcmp(step, "inflate"))
            inflate_one(files[i]);
        else if (!strcmp(step, "place"))
            place(layer(root, i), files[i]);
        else if (!strcmp(step, "keep"))
            keep(root, files[i], i);
    }
    if (!strcmp(step, "sync") && syncfs(root) < 0)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &b);
    getrusage(RUSAGE_SELF, &after);
    printf("%.3f %.3f\n", (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6,
           ms(after.ru_utime) - ms(before.ru_utime) + ms(after.ru_stime) - ms(before.ru_stime));
    return 0;
}

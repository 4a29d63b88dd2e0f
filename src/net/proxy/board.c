#include "net/proxy/board.h"

#include "base/fd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC = 0x42585a4c, VERSION = 1 };

_Static_assert(sizeof(struct zl_px_slot) == 64 && sizeof(struct zl_px_thread_line) == 64 &&
                   offsetof(struct zl_px_board, thread) == 64,
               "a slot and a thread have a cache line each");

static int map(int fd, struct zl_px_board **ret)
{
    void *p = mmap(NULL, sizeof(struct zl_px_board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

int zl_px_board_make(int *ret_fd, struct zl_px_board **ret)
{
    zl_auto_close int fd = memfd_create("zlayer-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(struct zl_px_board)) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    struct zl_px_board *b = NULL;
    int r = map(fd, &b);
    if (r < 0)
        return r;
    b->magic = MAGIC;
    b->version = VERSION;
    *ret = b;
    *ret_fd = ZL_TAKE_FD(fd);
    return 0;
}

int zl_px_board_map(int fd, struct zl_px_board **ret)
{
    /* Without the seals a shrunk file would end either side with SIGBUS. */
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;
    if (seals < 0 || fstat(fd, &st) < 0)
        return -errno;
    if ((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW) ||
        st.st_size != sizeof(struct zl_px_board))
        return -EBADMSG;
    struct zl_px_board *b = NULL;
    int r = map(fd, &b);
    if (r < 0)
        return r;
    if (b->magic != MAGIC || b->version != VERSION) {
        zl_px_board_unmap(b);
        return -EBADMSG;
    }
    *ret = b;
    return 0;
}

void zl_px_board_unmap(struct zl_px_board *b)
{
    if (b)
        munmap(b, sizeof *b);
}

void zl_px_board_reset(struct zl_px_board *b)
{
    atomic_store(&b->threads, 0);
    for (unsigned i = 0; i < ZL_PX_THREADS_MAX; i++)
        atomic_store(&b->thread[i].applied, 0);
    for (unsigned i = 0; i < ZL_PX_SLOTS && i < atomic_load(&b->slots_used); i++)
        atomic_store(&b->slot[i].in_flight, 0);
}

bool zl_px_board_applied(const struct zl_px_board *b, uint64_t number)
{
    uint32_t n = atomic_load(&b->threads);
    if (n == 0 || n > ZL_PX_THREADS_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (atomic_load(&b->thread[i].applied) < number)
            return false;
    return true;
}

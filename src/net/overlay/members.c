#include "net/overlay/members_priv.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

void zl_members_done(struct zl_members *m)
{
    free(m->rows);
    free(m->numbers);
    *m = (struct zl_members){ NULL };
}

static void reserve(struct zl_members *m, size_t n)
{
    if (n <= m->cap)
        return;
    m->cap = ZL_MAX(m->cap * 2, n);
    m->rows = zl_xrealloc(m->rows, m->cap, sizeof *m->rows);
    m->numbers = zl_xrealloc(m->numbers, m->cap, sizeof *m->numbers);
}

void zl_members_copy(struct zl_members *to, const struct zl_members *from)
{
    reserve(to, from->n);
    if (from->n) {
        memcpy(to->rows, from->rows, from->n * sizeof *to->rows);
        memcpy(to->numbers, from->numbers, from->n * sizeof *to->numbers);
    }
    to->n = from->n;
}

/* The index of the first row that is not below the address. */
static size_t lower_bound(const struct zl_members *m, struct in_addr addr)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (ntohl(m->rows[mid].addr.s_addr) < ntohl(addr.s_addr))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_at(const struct zl_members *m, size_t i, struct in_addr addr)
{
    return i < m->n && m->rows[i].addr.s_addr == addr.s_addr;
}

const struct zl_net_member *zl_members_find(const struct zl_members *m, struct in_addr addr)
{
    size_t i = lower_bound(m, addr);
    return is_at(m, i, addr) ? &m->rows[i] : NULL;
}

/* The names of deployments; they go into commands as they are. */
static bool is_deployment(const char *s)
{
    size_t n = strnlen(s, ZL_NET_DEPLOYMENT_SIZE);
    return n > 0 && n < ZL_NET_DEPLOYMENT_SIZE && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

int zl_members_put(struct zl_members *m, const struct zl_net_member *member)
{
    if (!is_deployment(member->deployment))
        return -EINVAL;
    size_t i = lower_bound(m, member->addr);
    if (!is_at(m, i, member->addr)) {
        reserve(m, m->n + 1);
        memmove(m->rows + i + 1, m->rows + i, (m->n - i) * sizeof *m->rows);
        memmove(m->numbers + i + 1, m->numbers + i, (m->n - i) * sizeof *m->numbers);
        m->n++;
    }
    m->rows[i] = *member;
    m->numbers[i] = 0;
    return 0;
}

void zl_members_remove(struct zl_members *m, struct in_addr addr)
{
    size_t i = lower_bound(m, addr);
    if (!is_at(m, i, addr))
        return;
    m->n--;
    memmove(m->rows + i, m->rows + i + 1, (m->n - i) * sizeof *m->rows);
    memmove(m->numbers + i, m->numbers + i + 1, (m->n - i) * sizeof *m->numbers);
}

static uint32_t number_of(const struct zl_members *m, const char *deployment)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->numbers[i] && strcmp(m->rows[i].deployment, deployment) == 0)
            return m->numbers[i];
    return 0;
}

void zl_members_number(struct zl_members *m, const struct zl_members *old)
{
    uint32_t highest = 0;
    for (size_t i = 0; i < old->n; i++)
        highest = ZL_MAX(highest, old->numbers[i]);
    for (size_t i = 0; i < m->n; i++)
        highest = ZL_MAX(highest, m->numbers[i]);
    for (size_t i = 0; i < m->n; i++) {
        if (m->numbers[i])
            continue;
        uint32_t known = number_of(old, m->rows[i].deployment);
        known = known ? known : number_of(m, m->rows[i].deployment);
        m->numbers[i] = known ? known : ++highest;
    }
}

int zl_members_restore(struct zl_members *m, uint32_t number, const struct zl_net_member *member)
{
    int r = number ? zl_members_put(m, member) : -EINVAL;
    if (r == 0)
        m->numbers[lower_bound(m, member->addr)] = number;
    return r;
}

static bool same(const struct zl_members *a, size_t i, const struct zl_members *b)
{
    size_t k = lower_bound(b, a->rows[i].addr);
    return is_at(b, k, a->rows[i].addr) && b->numbers[k] == a->numbers[i];
}

static void change(const struct zl_members *m, size_t i, bool add, struct zl_set_change **ret, size_t *n, size_t *cap)
{
    ZL_GROW(*ret, *n, *cap);
    (*ret)[(*n)++] = (struct zl_set_change){ add, m->numbers[i], m->rows[i] };
}

size_t zl_members_diff(const struct zl_members *old, const struct zl_members *now, struct zl_set_change **ret)
{
    size_t n = 0, cap = 0;
    *ret = NULL;
    for (size_t i = 0; i < old->n; i++)
        if (!same(old, i, now))
            change(old, i, false, ret, &n, &cap);
    for (size_t i = 0; i < now->n; i++)
        if (!same(now, i, old))
            change(now, i, true, ret, &n, &cap);
    return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory that belongs to this client, ordered by address. */
#include <stdlib.h>

#include "loop.h"

/* A treap: a search tree by address whose random priorities keep it flat. */
struct node {
    uint64_t ptr, bytes, booked;
    int device;
    bool kept, doubtful;
    uint32_t priority;
    struct oh_share *share; /* other processes may have it too; NULL: no */
    struct node *left, *right;
};

static struct node *root;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static uint32_t next_priority(void)
{
    static uint32_t x = 2463534242u; /* xorshift; [lock] */

    x ^= x << 13;
    x ^= x >> 17;
    return x ^= x << 5;
}

/* Everything below `ptr` goes left. */
static void split(struct node *n, uint64_t ptr, struct node **left, struct node **right)
{
    if (!n) {
        *left = *right = NULL;
    } else if (n->ptr < ptr) {
        split(n->right, ptr, &n->right, right);
        *left = n;
    } else {
        split(n->left, ptr, left, &n->left);
        *right = n;
    }
}

static struct node *merge(struct node *left, struct node *right)
{
    if (!left || !right)
        return left ? left : right;
    if (left->priority > right->priority) {
        left->right = merge(left->right, right);
        return left;
    }
    right->left = merge(left, right->left);
    return right;
}

/* The tree without those that may be gone. */
static struct node *without_doubtful(struct node *n)
{
    struct node *left, *right;

    if (!n)
        return NULL;
    left = without_doubtful(n->left);
    right = without_doubtful(n->right);
    if (n->doubtful) {
        free(n);
        return merge(left, right);
    }
    n->left = left;
    n->right = right;
    return n;
}

/* The last node that starts at or below `ptr`. */
static struct node *at_or_below(uint64_t ptr)
{
    struct node *n = root, *best = NULL;

    while (n) {
        if (n->ptr <= ptr)
            best = n;
        n = n->ptr <= ptr ? n->right : n->left;
    }
    return best;
}

/* [lock] for writing */
static bool kept_at(uint64_t ptr)
{
    const struct node *n = at_or_below(ptr);

    return n && n->ptr == ptr && n->kept;
}

void oh_ledger_keep(uint64_t ptr, bool kept)
{
    struct node *n;

    pthread_rwlock_wrlock(&lock);
    n = at_or_below(ptr);
    if (n && n->ptr == ptr) {
        n->doubtful = !kept; /* nobody tells when the driver has let go of what no graph makes again */
        n->kept = kept;
    }
    pthread_rwlock_unlock(&lock);
}

void oh_ledger_add(uint64_t ptr, uint64_t bytes, int device, uint64_t booked)
{
    struct node *n = calloc(1, sizeof(*n)), *left, *over, *right;

    if (!n) {
        oh_end(OC_CLOSED_WORKER, "out of host memory for the ledger of device memory");
        return;
    }
    n->ptr = ptr;
    n->bytes = bytes;
    n->booked = booked;
    n->device = device;
    pthread_rwlock_wrlock(&lock);
    if (kept_at(ptr)) { /* a failed free gives it back: it never went */
        pthread_rwlock_unlock(&lock);
        oh_unbook(device, booked);
        free(n);
        return;
    }
    n->priority = next_priority();
    split(root, ptr, &left, &over);
    split(over, bytes > UINT64_MAX - ptr ? UINT64_MAX : ptr + bytes, &over, &right);
    root = merge(merge(left, n), merge(without_doubtful(over), right)); /* the driver gave their addresses anew */
    pthread_rwlock_unlock(&lock);
}

/* Kept entries are never booked nor shared. */
static struct node *take(uint64_t ptr)
{
    struct node *left, *n = NULL, *right;

    pthread_rwlock_wrlock(&lock);
    if (kept_at(ptr)) { /* stays: the caller gets its likeness */
        n = malloc(sizeof(*n));
        if (n)
            *n = *at_or_below(ptr);
        pthread_rwlock_unlock(&lock);
        return n;
    }
    split(root, ptr, &left, &right);
    if (ptr != UINT64_MAX)
        split(right, ptr + 1, &n, &right);
    if (n) /* the root of all entries that start here; normally the only one */
        right = merge(merge(n->left, n->right), right);
    root = merge(left, right);
    pthread_rwlock_unlock(&lock);
    return n;
}

void (*_Atomic oh_share_gone)(struct oh_share *share, bool owner);

static void drop(int device, uint64_t booked, struct oh_share *share)
{
    oh_unbook(device, booked);
    if (share)
        atomic_load(&oh_share_gone)(share, booked != 0);
}

uint64_t oh_ledger_del(uint64_t ptr)
{
    struct node *n = take(ptr);
    uint64_t bytes = n ? n->bytes : 0;

    if (n)
        drop(n->device, n->booked, n->share);
    free(n);
    return bytes;
}

bool oh_entry_take(uint64_t ptr, struct oh_entry *e)
{
    struct node *n = take(ptr);

    if (n)
        *e = (struct oh_entry){ .ptr = n->ptr, .bytes = n->bytes, .booked = n->booked, .device = n->device,
                                .share = n->share };
    free(n);
    return n != NULL;
}

void oh_entry_drop(const struct oh_entry *e)
{
    drop(e->device, e->booked, e->share);
}

void oh_entry_restore(const struct oh_entry *e)
{
    oh_ledger_add(e->ptr, e->bytes, e->device, e->booked);
    if (e->share)
        oh_ledger_share(e->ptr, e->share);
}

struct oh_share *oh_ledger_share(uint64_t ptr, struct oh_share *share)
{
    struct node *n;

    pthread_rwlock_wrlock(&lock);
    n = at_or_below(ptr);
    if (n && n->ptr != ptr)
        n = NULL;
    if (n && !n->share)
        n->share = share;
    share = n ? n->share : NULL;
    pthread_rwlock_unlock(&lock);
    return share;
}

/* Adjacent entries count as one range: that is how mapped address ranges look. */
bool oh_ledger_has(uint64_t ptr, uint64_t bytes)
{
    struct node *n;
    uint64_t end;

    if (ptr + bytes < ptr)
        return false;
    end = ptr + bytes;
    pthread_rwlock_rdlock(&lock);
    do {
        n = at_or_below(ptr);
        if (n && ptr - n->ptr >= n->bytes)
            n = NULL;
        if (n)
            ptr = n->ptr + n->bytes;
    } while (n && ptr < end);
    pthread_rwlock_unlock(&lock);
    return n != NULL;
}

bool oh_ledger_find(uint64_t ptr, uint64_t *start, uint64_t *bytes, int *device)
{
    struct node *n;

    pthread_rwlock_rdlock(&lock);
    n = at_or_below(ptr);
    if (n && ptr - n->ptr >= n->bytes)
        n = NULL;
    if (n) {
        *start = n->ptr;
        *bytes = n->bytes;
        *device = n->device;
    }
    pthread_rwlock_unlock(&lock);
    return n != NULL;
}

static size_t collect(const struct node *n, int device, uint64_t *to, size_t room)
{
    size_t left, here;

    if (!n)
        return 0;
    left = collect(n->left, device, to, room);
    here = n->device == device && n->booked;
    if (here && left < room)
        to[left] = n->ptr;
    left += here;
    return left + collect(n->right, device, room > left ? to + left : NULL, room > left ? room - left : 0);
}

/* Only what is booked: memory mapped into address ranges belongs to no context and lives on. */
void oh_ledger_drop(int device)
{
    uint64_t *all;
    size_t n;

    pthread_rwlock_rdlock(&lock);
    n = collect(root, device, NULL, 0);
    all = calloc(n ? n : 1, sizeof(*all));
    n = all ? collect(root, device, all, n) : 0;
    pthread_rwlock_unlock(&lock);
    for (size_t i = 0; i < n; i++)
        oh_ledger_del(all[i]);
    free(all);
}

/* Writes down each change that a process makes to files below $POWER_ROOT, and (with $POWER_SOCKETS) all that it sends
 * to peers, to the file $POWER_LOG, in the order in which it happened. Built by power_recording.py, loaded by LD_PRELOAD.
 *
 * A change is written down when it is done; an fsync when it begins and when it has ended: it promises what was done
 * before it began. Data to peers is written down before it leaves. $POWER_KILL_AT=N ends the process by SIGKILL instead
 * of its N-th change or fsync.
 *
 * An entry: head, then a name of head.name bytes, then head.data bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint8_t kind, pad[3];
    int32_t process;
    uint64_t file;  /* inode; the port of a peer */
    int64_t at;     /* offset, size, mode, or the number of an fsync */
    uint32_t name, data;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static size_t root_size;
static int log_handle = -1;
static long kill_at, changes;
static int sockets;
static int64_t syncs;

#define REAL(type, name, ...)                                            \
    static type (*real)(__VA_ARGS__);                                    \
    if (!real)                                                           \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("POWER_ROOT"), *file = getenv("POWER_LOG"), *at = getenv("POWER_KILL_AT");
    if (!where || !file || !realpath(where, root))
        return;
    log_handle = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_handle < 0)
        abort();
    /* Out of the way of programs that expect the lowest handles. */
    int high = fcntl(log_handle, F_DUPFD_CLOEXEC, 700);
    if (high >= 0) {
        syscall(SYS_close, log_handle);
        log_handle = high;
    }
    root_size = strlen(root);
    sockets = getenv("POWER_SOCKETS") != 0;
    kill_at = at ? atol(at) : 0;
}

static void put(char kind, uint64_t file, int64_t at, const char *name, size_t name_size, const void *data,
                size_t size) {
    struct head head = {(uint8_t)kind, {0}, getpid(), file, at, (uint32_t)name_size, (uint32_t)size};
    struct iovec pieces[3] = {{&head, sizeof head}, {(void *)name, name_size}, {(void *)data, size}};
    if (syscall(SYS_writev, log_handle, pieces, 3) != (ssize_t)(sizeof head + name_size + size))
        abort();
}

static int is_below(const char *path) {
    return log_handle >= 0 && strncmp(path, root, root_size) == 0 && (path[root_size] == '/' || !path[root_size]);
}

/* Whether an open file is one of ours; its facts. */
static int is_ours(int handle, struct stat *facts) {
    char link[64], path[PATH_MAX];
    if (log_handle < 0 || handle < 0 || handle == log_handle)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return is_below(path) && fstat(handle, facts) == 0;
}

/* A path with its folder resolved, and whether it is one of ours. */
static int whole_path(int folder, const char *path, char *out) {
    char long_path[PATH_MAX], base[PATH_MAX], link[64];
    if (log_handle < 0 || !path || !*path)
        return 0;
    if (*path == '/') {
        snprintf(long_path, sizeof long_path, "%s", path);
    } else {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size <= 0)
            return 0;
        base[size] = 0;
        if (snprintf(long_path, sizeof long_path, "%s/%s", base, path) >= PATH_MAX)
            return 0;
    }
    size_t end = strlen(long_path);
    while (end > 1 && long_path[end - 1] == '/')
        long_path[--end] = 0;
    char *last = strrchr(long_path, '/'), parent[PATH_MAX];
    if (!last || last == long_path)
        return 0;
    *last = 0;
    if (!realpath(long_path, parent) || snprintf(out, PATH_MAX, "%s/%s", parent, last + 1) >= PATH_MAX)
        return 0;
    return is_below(out);
}

/* Called before each change and fsync of ours. */
static void count(void) {
    if (kill_at && ++changes == kill_at)
        syscall(SYS_kill, getpid(), SIGKILL);
}

static const char *short_name(const char *path) { return path + root_size + (path[root_size] == '/'); }

/* ---------------------------------------------------------------- names */

static int open_it(int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    struct stat facts;
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !whole_path(folder, path, whole))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = stat(whole, &facts) == 0;
    if (!existed || flags & O_TRUNC)
        count();
    int handle = (int)syscall(SYS_openat, folder, path, flags, mode), error = errno;
    if (handle >= 0 && fstat(handle, &facts) == 0 && S_ISREG(facts.st_mode)) {
        if (!existed)
            put('C', facts.st_ino, facts.st_mode & 07777, short_name(whole), strlen(short_name(whole)), 0, 0);
        else if (flags & O_TRUNC)
            put('T', facts.st_ino, 0, 0, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return handle;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPEN(name, extra)                                                \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = mode_of(flags, rest);                              \
        va_end(rest);                                                    \
        return open_it(AT_FDCWD, path, flags | (extra), mode);           \
    }
#define OPENAT(name, extra)                                              \
    int name(int folder, const char *path, int flags, ...) {             \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = mode_of(flags, rest);                              \
        va_end(rest);                                                    \
        return open_it(folder, path, flags | (extra), mode);             \
    }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)
OPENAT(openat, 0)
OPENAT(openat64, O_LARGEFILE)
int creat(const char *path, mode_t mode) { return open_it(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static int named(char kind, int from_folder, const char *from, int to_folder, const char *to, long number, long flags) {
    char first[PATH_MAX], second[PATH_MAX], both[2 * PATH_MAX];
    int ours = whole_path(from_folder, from, first), also = to && whole_path(to_folder, to, second);
    struct stat facts = {0};
    if (ours || also)
        pthread_mutex_lock(&lock), count();
    if (ours && kind != 'D')
        lstat(first, &facts);
    int result = to ? (int)syscall(number, from_folder, from, to_folder, to, flags)
                    : (int)syscall(number, from_folder, from, flags),
        error = errno;
    if (!result && ours && kind == 'D')
        lstat(first, &facts);
    if (!result && (ours || also)) {
        if (ours != (to ? also : ours))
            abort(); /* into the folder, or out of it: nothing that is recorded does that */
        size_t size = (size_t)sprintf(both, "%s", short_name(first));
        if (to)
            size += 1 + (size_t)sprintf(both + size + 1, "%s", short_name(second));
        put(kind, facts.st_ino, facts.st_mode & 07777, both, size, 0, 0);
    }
    if (ours || also)
        pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) { return named('R', AT_FDCWD, from, AT_FDCWD, to, SYS_renameat2, 0); }
int renameat(int a, const char *from, int b, const char *to) { return named('R', a, from, b, to, SYS_renameat2, 0); }
int link(const char *from, const char *to) { return named('L', AT_FDCWD, from, AT_FDCWD, to, SYS_linkat, 0); }
int unlink(const char *path) { return named('U', AT_FDCWD, path, 0, 0, SYS_unlinkat, 0); }
int rmdir(const char *path) { return named('U', AT_FDCWD, path, 0, 0, SYS_unlinkat, AT_REMOVEDIR); }
int unlinkat(int folder, const char *path, int flags) { return named('U', folder, path, 0, 0, SYS_unlinkat, flags); }
int mkdir(const char *path, mode_t mode) { return named('D', AT_FDCWD, path, 0, 0, SYS_mkdirat, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return named('D', folder, path, 0, 0, SYS_mkdirat, mode); }

/* ---------------------------------------------------------------- sockets */

/* Whether it leads to a peer, whose port is its name; only where $POWER_SOCKETS is set. */
static int is_peer(int handle, uint64_t *name) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int error = errno, found = 0;
    if (log_handle >= 0 && sockets && !getpeername(handle, (struct sockaddr *)&peer, &length)) {
        found = peer.ss_family == AF_INET;
        *name = ntohs(((struct sockaddr_in *)&peer)->sin_port);
    }
    errno = error;
    return found;
}

/* Written down before it leaves; then how much of it the system took. */
static ssize_t send_it(int handle, uint64_t name, const void *data, size_t size, int flags) {
    pthread_mutex_lock(&lock);
    put('S', name, 0, 0, 0, data, size);
    ssize_t done = syscall(SYS_sendto, handle, data, size, flags, 0, 0);
    int error = errno;
    put('s', name, done, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t send(int handle, const void *data, size_t size, int flags) {
    uint64_t name;
    if (is_peer(handle, &name))
        return send_it(handle, name, data, size, flags);
    return syscall(SYS_sendto, handle, data, size, flags, 0, 0);
}

ssize_t sendmsg(int handle, const struct msghdr *message, int flags) {
    uint64_t name;
    if (is_peer(handle, &name))
        abort(); /* what is recorded sends by send and write */
    return syscall(SYS_sendmsg, handle, message, flags);
}

/* ---------------------------------------------------------------- contents */

/* ``at`` < 0: where the handle stands, or at the end. */
static ssize_t write_it(int handle, const void *data, size_t size, off64_t at) {
    struct stat facts;
    uint64_t name;
    if (at < 0 && is_peer(handle, &name))
        return send_it(handle, name, data, size, MSG_NOSIGNAL);
    if (!is_ours(handle, &facts) || !S_ISREG(facts.st_mode))
        return at < 0 ? syscall(SYS_write, handle, data, size) : syscall(SYS_pwrite64, handle, data, size, at);
    pthread_mutex_lock(&lock);
    count();
    off64_t start = at;
    if (at < 0) {
        fstat(handle, &facts);
        start = fcntl(handle, F_GETFL) & O_APPEND ? facts.st_size : (off64_t)syscall(SYS_lseek, handle, 0, SEEK_CUR);
    }
    ssize_t done = at < 0 ? syscall(SYS_write, handle, data, size) : syscall(SYS_pwrite64, handle, data, size, at);
    int error = errno;
    if (done > 0)
        put('W', facts.st_ino, start, 0, 0, data, (size_t)done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int handle, const void *data, size_t size) { return write_it(handle, data, size, -1); }
ssize_t pwrite(int handle, const void *data, size_t size, off_t at) { return write_it(handle, data, size, at); }
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) { return write_it(handle, data, size, at); }

/* Nothing that is recorded changes a file by these: better to know. */
#define REFUSED(type, name, parameters, real_type, arguments)            \
    type name parameters {                                               \
        struct stat facts;                                               \
        if (is_ours(handle, &facts) && S_ISREG(facts.st_mode))           \
            abort();                                                     \
        REAL(type, #name, real_type)                                     \
        return real arguments;                                           \
    }
#define COMMA ,
REFUSED(ssize_t, writev, (int handle, const struct iovec *p, int n), int COMMA const struct iovec * COMMA int,
        (handle, p, n))
REFUSED(ssize_t, pwritev64, (int handle, const struct iovec *p, int n, off64_t at),
        int COMMA const struct iovec * COMMA int COMMA off64_t, (handle, p, n, at))
REFUSED(ssize_t, sendfile64, (int handle, int in, off64_t *at, size_t size),
        int COMMA int COMMA off64_t * COMMA size_t, (handle, in, at, size))

static int cut(int handle, off64_t size) {
    struct stat facts;
    if (!is_ours(handle, &facts))
        return (int)syscall(SYS_ftruncate, handle, size);
    pthread_mutex_lock(&lock);
    count();
    int result = (int)syscall(SYS_ftruncate, handle, size), error = errno;
    if (!result)
        put('T', facts.st_ino, size, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int handle, off_t size) { return cut(handle, size); }
int ftruncate64(int handle, off64_t size) { return cut(handle, size); }

static int sync_it(int handle, long number) {
    struct stat facts;
    if (!is_ours(handle, &facts))
        return (int)syscall(number, handle);
    pthread_mutex_lock(&lock);
    count();
    int64_t id = ++syncs;
    put('f', facts.st_ino, id, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    int result = (int)syscall(number, handle), error = errno;
    if (!result)
        put('F', facts.st_ino, id, 0, 0, 0, 0);
    errno = error;
    return result;
}

int fsync(int handle) { return sync_it(handle, SYS_fsync); }
int fdatasync(int handle) { return sync_it(handle, SYS_fdatasync); }

/* The memory of a file that is mapped may reach the disk at any moment. */
static void *map(void *where, size_t size, int may, int flags, int handle, off64_t at) {
    struct stat facts;
    void *result = (void *)syscall(SYS_mmap, where, size, may, flags, handle, at);
    if (flags & MAP_SHARED && may & PROT_WRITE && is_ours(handle, &facts))
        put('m', facts.st_ino, 0, 0, 0, 0, 0);
    return result;
}

void *mmap(void *where, size_t size, int may, int flags, int handle, off_t at) {
    return map(where, size, may, flags, handle, at);
}
void *mmap64(void *where, size_t size, int may, int flags, int handle, off64_t at) {
    return map(where, size, may, flags, handle, at);
}

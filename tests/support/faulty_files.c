/* A file system with a fault, for the process that loads this with LD_PRELOAD and for its children.
   -DNO_LOCKS: locks are granted to everybody. -DREFUSED_LOCKS: they are refused, as by NFS without its lock service.
   -DONE_PROCESS: they are refused to every process but the one that FIRST names. -DNO_SHARING: memory of a file is not shared between processes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(NO_LOCKS) || defined(REFUSED_LOCKS) || defined(ONE_PROCESS)
static int faulty(int fd, int command, void *argument) {
    static int (*real)(int, int, ...);
    int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
#ifdef NO_LOCKS
    if (locks) return 0;
#else
    const char *first = getenv("FIRST");
    if (locks && (!first || atoi(first) != getpid())) {
        errno = first ? EIO : ENOLCK;
        return -1;
    }
#endif
    if (command == F_GETLK || command == F_OFD_GETLK) {
        ((struct flock *)argument)->l_type = F_UNLCK;
        return 0;
    }
    if (!real) real = dlsym(RTLD_NEXT, "fcntl64");
    if (!real) real = dlsym(RTLD_NEXT, "fcntl");
    return real(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return faulty(fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return faulty(fd, command, argument);
}
#endif

#ifdef NO_SHARING
static void *faulty_map(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "mmap64");
    if (!real) real = dlsym(RTLD_NEXT, "mmap");
    if (fd >= 0 && (flags & MAP_SHARED)) flags = (flags & ~MAP_SHARED) | MAP_PRIVATE;
    return real(at, size, protection, flags, fd, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return faulty_map(at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return faulty_map(at, size, protection, flags, fd, offset);
}
#endif

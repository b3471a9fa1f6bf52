/* A FAKE libcuda for the real PyCUDA: it counts the references to the primary context, the contexts on the stacks of all
 * threads, and what is allocated, and writes the counts to $FAKE_REPORT when the process ends. Other functions that
 * PyCUDA links are added by the test, and return 0.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread void *stack[64];
static __thread int depth;
static int pushed, references, retained, buffers, pages, streams, graphs;

static int sticky(void) { return getenv("FAKE_STICKY") ? 719 : 0; }

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("FAKE_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "retained %d\nreferences %d\ndepth %d\nbuffers %d\npages %d\nstreams %d\ngraphs %d\n", retained,
            references, pushed, buffers, pages, streams, graphs);
    fclose(file);
}

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "FAKE GPU", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 18 ? 0 : 8; return 0; }
int cuGetErrorName(int status, const char **name) { *name = "FAKE_ERROR"; return 0; }
int cuGetErrorString(int status, const char **text) { *text = status == 2 ? "out of memory" : "fake error"; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) { retained++; references++; *context = (void *)0x1234; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { references--; return 0; }
int cuDevicePrimaryCtxRelease(int device) { references--; return 0; }
int cuCtxPushCurrent_v2(void *context)
{
    if (references < 1) return 201;
    stack[depth++] = context;
    __sync_fetch_and_add(&pushed, 1);
    return 0;
}
int cuCtxPopCurrent_v2(void **context)
{
    if (!depth) return 201;
    *context = stack[--depth];
    __sync_fetch_and_sub(&pushed, 1);
    return 0;
}
int cuCtxGetCurrent(void **context) { *context = depth ? stack[depth - 1] : NULL; return 0; }

int cuMemGetInfo_v2(size_t *available, size_t *total)
{
    if (!depth) return 201;
    *available = getenv("FAKE_FREE") ? strtoull(getenv("FAKE_FREE"), NULL, 10) : 1ull << 33;
    *total = 1ull << 33;
    return 0;
}
int cuMemAlloc_v2(uint64_t *address, size_t size)
{
    if (!depth) return 201;
    if (getenv("FAKE_OUT_OF_MEMORY")) return 2;
    *address = 0x100000u * ++buffers;
    return 0;
}
int cuMemFree_v2(uint64_t address) { if (!depth) return 201; if (sticky()) return 719; buffers--; return 0; }
int cuMemHostAlloc(void **address, size_t size, unsigned flags)
{
    if (!depth) return 201;
    *address = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    pages++;
    return 0;
}
int cuMemAllocHost_v2(void **address, size_t size) { return cuMemHostAlloc(address, size, 0); }
int cuMemFreeHost(void *address) { if (!depth) return 201; free(address); pages--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) { return depth ? sticky() : 201; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream)
{
    if (depth) memset(to, 0, size);
    return depth ? sticky() : 201;
}

int cuStreamCreate(void **stream, unsigned flags)
{
    if (!depth) return 201;
    /* a blocking stream would wait for other libraries */
    if (flags != 1) return 1;
    streams++;
    *stream = (void *)0x77;
    return 0;
}
int cuStreamDestroy_v2(void *stream) { if (!depth) return 201; streams--; return 0; }
int cuStreamSynchronize(void *stream) { return depth ? sticky() : 201; }
int cuStreamBeginCapture_v2(void *stream, int mode) { return depth && stream == (void *)0x77 && mode == 1 ? 0 : 1; }
int cuStreamEndCapture(void *stream, void **graph) { graphs++; *graph = (void *)0x88; return 0; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags)
{
    if (graph != (void *)0x88 || flags) return 1;
    graphs++;
    *executable = (void *)0x99;
    return 0;
}
int cuGraphLaunch(void *executable, void *stream)
{
    return depth && executable == (void *)0x99 && stream == (void *)0x77 ? sticky() : 1;
}
int cuGraphExecDestroy(void *executable) { graphs--; return executable == (void *)0x99 ? 0 : 1; }
int cuGraphDestroy(void *graph) { graphs--; return graph == (void *)0x88 ? 0 : 1; }

/* The calls of NVIDIA's driver that this package makes, on host memory.
 *
 * cuda-bindings loads it as libcuda.so.1 and asks cuGetProcAddress for every function. Streams and
 * graphs run what is put into them at once; a launch unpacks its arguments as a GPU would and does
 * what the kernel of that name does. `fake_live` counts what was made and not destroyed; the call
 * that `fake_fail` names fails once. A capture is invalidated by what CUDA does not allow in one.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Pointer;

enum {
    INVALID = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    UNKNOWN = 999
};

static long live;
static size_t used, limit = 1 << 20;
static enum { IDLE, CAPTURING, INVALIDATED } capture;
static int launches;
static char failing[64];

typedef struct {
    char kind[16];
} Handle;

static Handle *make(const char *kind)
{
    Handle *made = calloc(1, sizeof *made);
    strcpy(made->kind, kind);
    ++live;
    return made;
}

static Status drop(void *given, const char *kind)
{
    Handle *handle = given;
    if (!handle || strcmp(handle->kind, kind))
        return INVALID;
    strcpy(handle->kind, "gone");
    --live;
    return 0;
}

static Status check(void *given, const char *kind)
{
    Handle *handle = given;
    return handle && !strcmp(handle->kind, kind) ? 0 : INVALID;
}

long fake_live(void) { return live; }
int fake_launches(void) { return launches; }
int fake_capturing(void) { return capture != IDLE; }
void fake_fail(const char *call) { snprintf(failing, sizeof failing, "%s", call); }
static void report(void) { printf("left: %ld\n", live); }
void fake_report_at_exit(void) { atexit(report); }

static int fails(const char *call)
{
    int found = !strcmp(failing, call);
    if (found)
        *failing = 0;
    return found;
}

/* What waits for the GPU is not allowed while its thread captures. */
static Status outside_of_captures(void)
{
    if (capture == IDLE)
        return 0;
    capture = INVALIDATED;
    return CAPTURE_UNSUPPORTED;
}

Status cuInit(unsigned flags) { return flags ? INVALID : 0; }
Status cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Status cuDeviceGetCount(int *count) { *count = 1; return 0; }
Status cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal ? 101 : 0; }
Status cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, size, "Fake H100");
    return device == 7 ? 0 : INVALID;
}
Status cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
    return device == 7 ? 0 : INVALID;
}
static Handle *context;
static int retained;
Status cuDevicePrimaryCtxRetain(void **made, int device)
{
    if (!retained++)
        context = make("context");
    *made = context;
    return device == 7 ? 0 : INVALID;
}
Status cuDevicePrimaryCtxRelease_v2(int device)
{
    if (device != 7 || !retained)
        return INVALID;
    return --retained ? 0 : drop(context, "context");
}
Status cuCtxSetCurrent(void *given) { return check(given, "context"); }
Status cuMemGetInfo_v2(size_t *free, size_t *total)
{
    *free = limit - used;
    *total = limit;
    return 0;
}
Status cuMemAlloc_v2(Pointer *pointer, size_t size)
{
    size_t *block;
    if (!retained)
        return INVALID_CONTEXT;
    if (outside_of_captures())
        return CAPTURE_UNSUPPORTED;
    if (used + size > limit)
        return OUT_OF_MEMORY;
    block = malloc(size + 64);
    block[0] = size;
    used += size;
    ++live;
    *pointer = (Pointer)(uintptr_t)block + 64;
    return 0;
}
Status cuMemFree_v2(Pointer pointer)
{
    size_t *block = (size_t *)(uintptr_t)(pointer - 64);
    used -= block[0];
    --live;
    free(block);
    return 0;
}
Status cuMemHostAlloc(void **memory, size_t size, unsigned flags)
{
    *memory = malloc(size);
    ++live;
    return flags ? INVALID : 0;
}
Status cuMemFreeHost(void *memory) { free(memory); --live; return 0; }
Status cuStreamCreate(void **stream, unsigned flags)
{
    *stream = make("stream");
    return flags == 1 ? 0 : INVALID;
}
Status cuStreamDestroy_v2(void *stream) { return drop(stream, "stream"); }
Status cuEventCreate(void **event, unsigned flags)
{
    *event = NULL;
    if (fails("cuEventCreate"))
        return OUT_OF_MEMORY;
    *event = make("event");
    return flags == 2 ? 0 : INVALID;
}
Status cuEventDestroy_v2(void *event) { return drop(event, "event"); }
Status cuEventRecord(void *event, void *stream) { return check(event, "event") | check(stream, "stream"); }
Status cuEventQuery(void *event) { return check(event, "event"); }
Status cuEventSynchronize(void *event) { return outside_of_captures() | check(event, "event"); }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags)
{
    return check(event, "event") | check(stream, "stream") | (flags ? INVALID : 0);
}
Status cuMemcpyHtoDAsync_v2(Pointer target, const void *source, size_t size, void *stream)
{
    memcpy((void *)(uintptr_t)target, source, size);
    return check(stream, "stream");
}
Status cuMemcpyDtoHAsync_v2(void *target, Pointer source, size_t size, void *stream)
{
    memcpy(target, (void *)(uintptr_t)source, size);
    return check(stream, "stream");
}
Status cuModuleLoadData(void **module, const void *image)
{
    *module = make("module");
    return memcmp(image, "\177ELF", 4) ? INVALID : 0;
}
Status cuModuleUnload(void *module) { return drop(module, "module"); }
static char names[64][32];
Status cuModuleGetFunction(void **function, void *module, const char *name)
{
    static int count;
    strcpy(names[count], name);
    *function = names[count++];
    return check(module, "module");
}
Status cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by,
                      unsigned bz, unsigned shared, void *stream, void **arguments, void **extra)
{
    int unit;
    if (check(stream, "stream") || extra || shared || y != 1 || z != 1 || by != 1 || bz != 1 || !x || !bx)
        return INVALID;
    ++launches;
    if (sscanf(function, "gather_%d", &unit) == 1) {
        const char *source = *(char **)arguments[0];
        const int *index = *(int **)arguments[1];
        char *target = *(char **)arguments[2];
        long long rows = *(long long *)arguments[3], size = *(long long *)arguments[4] * unit, row;
        for (row = 0; row < rows; ++row)
            memcpy(target + row * size, source + index[row] * size, size);
        return 0;
    }
    if (!strcmp(function, "count_ranks")) {
        /* What arrives is written where the first counts are, for the test to look at. */
        int *out = *(int **)arguments[4];
        int place;
        out[0] = (**(float ***)arguments[0])[0] == 1.5f;
        for (place = 7; place < 14; ++place)
            out[place - 6] = *(int *)arguments[place];
        return 0;
    }
    return NOT_FOUND;
}
Status cuStreamBeginCapture_v2(void *stream, int mode)
{
    if (capture != IDLE)
        return ILLEGAL_STATE;
    if (fails("cuStreamBeginCapture"))
        return UNKNOWN;
    capture = CAPTURING;
    return mode == 1 ? check(stream, "stream") : INVALID;
}
Status cuStreamEndCapture(void *stream, void **graph)
{
    int before = capture;
    *graph = NULL;
    if (before == IDLE)
        return ILLEGAL_STATE;
    capture = IDLE;
    if (before == INVALIDATED || fails("cuStreamEndCapture"))
        return CAPTURE_INVALIDATED;
    *graph = make("graph");
    return check(stream, "stream");
}
Status cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags)
{
    *made = NULL;
    if (fails("cuGraphInstantiate"))
        return OUT_OF_MEMORY;
    *made = make("exec");
    return flags ? INVALID : check(graph, "graph");
}
Status cuGraphDestroy(void *graph) { return drop(graph, "graph"); }
Status cuGraphExecDestroy(void *graph) { return drop(graph, "exec"); }
Status cuGraphLaunch(void *graph, void *stream) { return check(graph, "exec") | check(stream, "stream"); }
Status cuGetErrorName(Status status, const char **name) { (void)status; *name = "FAKE"; return 0; }

static const struct {
    const char *name;
    void *function;
} FUNCTIONS[] = {
    {"cuCtxSetCurrent", (void *)cuCtxSetCurrent},
    {"cuDeviceGet", (void *)cuDeviceGet},
    {"cuDeviceGetAttribute", (void *)cuDeviceGetAttribute},
    {"cuDeviceGetCount", (void *)cuDeviceGetCount},
    {"cuDeviceGetName", (void *)cuDeviceGetName},
    {"cuDevicePrimaryCtxRelease", (void *)cuDevicePrimaryCtxRelease_v2},
    {"cuDevicePrimaryCtxRetain", (void *)cuDevicePrimaryCtxRetain},
    {"cuDriverGetVersion", (void *)cuDriverGetVersion},
    {"cuEventCreate", (void *)cuEventCreate},
    {"cuEventDestroy", (void *)cuEventDestroy_v2},
    {"cuEventQuery", (void *)cuEventQuery},
    {"cuEventRecord", (void *)cuEventRecord},
    {"cuEventSynchronize", (void *)cuEventSynchronize},
    {"cuGetErrorName", (void *)cuGetErrorName},
    {"cuGraphDestroy", (void *)cuGraphDestroy},
    {"cuGraphExecDestroy", (void *)cuGraphExecDestroy},
    {"cuGraphInstantiateWithFlags", (void *)cuGraphInstantiateWithFlags},
    {"cuGraphLaunch", (void *)cuGraphLaunch},
    {"cuInit", (void *)cuInit},
    {"cuLaunchKernel", (void *)cuLaunchKernel},
    {"cuMemAlloc", (void *)cuMemAlloc_v2},
    {"cuMemFreeHost", (void *)cuMemFreeHost},
    {"cuMemFree", (void *)cuMemFree_v2},
    {"cuMemGetInfo", (void *)cuMemGetInfo_v2},
    {"cuMemHostAlloc", (void *)cuMemHostAlloc},
    {"cuMemcpyDtoHAsync", (void *)cuMemcpyDtoHAsync_v2},
    {"cuMemcpyHtoDAsync", (void *)cuMemcpyHtoDAsync_v2},
    {"cuModuleGetFunction", (void *)cuModuleGetFunction},
    {"cuModuleUnload", (void *)cuModuleUnload},
    {"cuModuleLoadData", (void *)cuModuleLoadData},
    {"cuStreamBeginCapture", (void *)cuStreamBeginCapture_v2},
    {"cuStreamCreate", (void *)cuStreamCreate},
    {"cuStreamDestroy", (void *)cuStreamDestroy_v2},
    {"cuStreamEndCapture", (void *)cuStreamEndCapture},
    {"cuStreamWaitEvent", (void *)cuStreamWaitEvent},
    {"cuGraphInstantiate", (void *)cuGraphInstantiateWithFlags},
};

Status cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status)
{
    size_t place;
    (void)version, (void)flags;
    *function = NULL;
    if (status)
        *status = 1;
    for (place = 0; place < sizeof FUNCTIONS / sizeof *FUNCTIONS; ++place)
        if (!strcmp(FUNCTIONS[place].name, symbol)) {
            *function = FUNCTIONS[place].function;
            if (status)
                *status = 0;
        }
    return *function ? 0 : NOT_FOUND;
}

Status cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

/* A stand-in for NVIDIA's libnvidia-ml.so.1, as far as this project and Ray use it.
 *
 * It plays the state file named by UN0_NVML_STUB, read anew at every call, one device a line:
 *
 *   board|UUID|NAME|STATUS|COUNTER_MJ|RATE_MW|UPDATE_MS|POWER_MW|LIMIT_MW|MODULE_MW|UTILISATION
 *   mig|UUID|UUID OF ITS BOARD|COMPUTE SLICES
 *   process|UUID OF ITS BOARD|PID|SM UTILISATION|STAMP_US
 *
 * STATUS is what queries of the board return (0 is success). A value of -1 is not supported. The
 * counter is COUNTER_MJ plus RATE_MW since the machine started, updated every UPDATE_MS. A process
 * has a context on its board, and one sample of its utilisation, unless that is -1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE };
enum { BOARD, MIG, PROCESS };
enum { MAX_DEVICES = 64, MIG_SLICES = 7, POWER_AVERAGE = 185, SCOPE_MODULE = 1 };

typedef struct {
    int kind, status, slices, pid, util;
    long long stamp_us;
    char uuid[96], name[96], board[96];
    long long counter_mj, rate_mw, update_ms, power_mw, limit_mw, module_mw, board_util;
} Device;

typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type, status;
    union { unsigned u; unsigned long long ull; } value;
} FieldValue;

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
} ProcessInfo;

typedef struct {
    unsigned pid;
    unsigned long long stamp_us;
    unsigned sm, memory, encoder, decoder;
} Utilisation;

static _Atomic int sessions;

static int load(Device *devices) {
    const char *path = getenv("UN0_NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    int count = 0;
    while (file && count < MAX_DEVICES && fgets(line, sizeof line, file)) {
        Device d = {0};
        if (sscanf(line, "board|%95[^|]|%95[^|]|%d|%lld|%lld|%lld|%lld|%lld|%lld|%lld", d.uuid, d.name,
                   &d.status, &d.counter_mj, &d.rate_mw, &d.update_ms, &d.power_mw, &d.limit_mw,
                   &d.module_mw, &d.board_util) == 10)
            devices[count++] = d;
        else if (sscanf(line, "mig|%95[^|]|%95[^|]|%d", d.uuid, d.board, &d.slices) == 3) {
            d.kind = MIG;
            devices[count++] = d;
        } else if (sscanf(line, "process|%95[^|]|%d|%d|%lld", d.board, &d.pid, &d.util,
                          &d.stamp_us) == 4) {
            d.kind = PROCESS;
            devices[count++] = d;
        }
    }
    if (file) fclose(file);
    return count;
}

/* A handle is the number of the device's line. */
static int look_up(void *handle, Device *found) {
    Device devices[MAX_DEVICES];
    size_t number = (size_t)handle;
    if (!sessions) return UNINITIALIZED;
    if (number < 1 || number > (size_t)load(devices)) return INVALID_ARGUMENT;
    *found = devices[number - 1];
    return found->status;
}

static int find(const char *uuid, int index, void **handle) {
    Device devices[MAX_DEVICES];
    int count = load(devices), boards = 0;
    if (!sessions) return UNINITIALIZED;
    for (int i = 0; i < count; i++) {
        int nth = devices[i].kind == BOARD ? boards++ : -1;
        if (uuid ? !strcmp(devices[i].uuid, uuid) : nth == index) {
            *handle = (void *)(size_t)(i + 1);
            return OK;
        }
    }
    return NOT_FOUND;
}

static int put(long long value, unsigned *out) {
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return OK;
}

#define LOOK_UP(handle) Device d; int status = look_up(handle, &d); if (status) return status

int nvmlInitWithFlags(unsigned flags) { (void)flags; sessions++; return OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!sessions) return UNINITIALIZED; sessions--; return OK; }
const char *nvmlErrorString(int status) { return status == 15 ? "GPU is lost" : "stub error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    if (!sessions) return UNINITIALIZED;
    snprintf(out, size, "999.1");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    Device devices[MAX_DEVICES];
    int count = load(devices);
    if (!sessions) return UNINITIALIZED;
    *out = 0;
    for (int i = 0; i < count; i++) *out += devices[i].kind == BOARD;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **out) { return find(NULL, (int)i, out); }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) { return find(uuid, 0, out); }

int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    LOOK_UP(handle);
    snprintf(out, size, "%s", d.uuid);
    return OK;
}

int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    LOOK_UP(handle);
    snprintf(out, size, "%s", d.name);
    return OK;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem_ids;
    char bus_id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(void *handle, PciInfo *out) {
    LOOK_UP(handle);
    *out = (PciInfo){.bus = 0x3b, .bus_id = "00000000:3B:00.0"};
    return OK;
}

typedef struct { unsigned gpu, memory; } Rates;

int nvmlDeviceGetUtilizationRates(void *handle, Rates *out) {
    LOOK_UP(handle);
    out->memory = 0;
    return put(d.board_util, &out->gpu);
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *out) {
    LOOK_UP(handle);
    if (d.counter_mj < 0) return NOT_SUPPORTED;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    if (d.update_ms > 0) ms -= ms % d.update_ms;
    *out = (unsigned long long)(d.counter_mj + d.rate_mw * ms / 1000);
    return OK;
}

int nvmlDeviceGetPowerUsage(void *h, unsigned *out) { LOOK_UP(h); return put(d.power_mw, out); }
int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned *out) {
    LOOK_UP(h);
    return put(d.limit_mw, out);
}

int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    LOOK_UP(handle);
    for (int i = 0; i < count; i++) {
        int known = values[i].field == POWER_AVERAGE && values[i].scope == SCOPE_MODULE;
        values[i].type = 1; /* unsigned int */
        values[i].status = known ? put(d.module_mw, &values[i].value.u) : NOT_SUPPORTED;
    }
    return OK;
}

int nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *out) {
    LOOK_UP(handle);
    *out = d.kind == MIG;
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *handle, void **out) {
    LOOK_UP(handle);
    return d.kind == MIG ? find(d.board, 0, out) : INVALID_ARGUMENT;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *out) {
    LOOK_UP(handle);
    *out = MIG_SLICES;
    return OK;
}

int nvmlDeviceGetAttributes_v2(void *handle, unsigned *out) {
    LOOK_UP(handle);
    if (d.kind != MIG) return INVALID_ARGUMENT;
    memset(out, 0, 8 * sizeof *out + sizeof(long long));
    out[6] = MIG_SLICES; /* of the GPU instance: deliberately not the compute instance's */
    out[7] = (unsigned)d.slices;
    return OK;
}

/* The board's processes, or as many as fit; how many there are. */
static unsigned processes(const Device *board, Device *found) {
    Device devices[MAX_DEVICES];
    int count = load(devices);
    unsigned here = 0;
    for (int i = 0; i < count; i++)
        if (devices[i].kind == PROCESS && !strcmp(devices[i].board, board->uuid))
            found[here++] = devices[i];
    return here;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, ProcessInfo *out) {
    LOOK_UP(handle);
    Device found[MAX_DEVICES];
    unsigned room = out ? *count : 0, here = processes(&d, found);
    *count = here;
    if (here > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < here; i++) out[i] = (ProcessInfo){.pid = (unsigned)found[i].pid};
    return OK;
}

int nvmlDeviceGetProcessUtilization(void *handle, Utilisation *out, unsigned *count,
                                    unsigned long long since_us) {
    LOOK_UP(handle);
    Device found[MAX_DEVICES];
    unsigned room = out ? *count : 0, here = processes(&d, found), recent = 0;
    for (unsigned i = 0; i < here; i++) {
        if (found[i].util < 0) return NOT_SUPPORTED;
        if ((unsigned long long)found[i].stamp_us > since_us) found[recent++] = found[i];
    }
    *count = recent;
    if (!recent) return NOT_FOUND;
    if (recent > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < recent; i++)
        out[i] = (Utilisation){.pid = (unsigned)found[i].pid,
                               .stamp_us = (unsigned long long)found[i].stamp_us,
                               .sm = (unsigned)found[i].util};
    return OK;
}

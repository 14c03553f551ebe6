/* Lock, files, enumeration and handles: everything that the exported functions share. */
#include "state.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct state state;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvmlDevice devices[MAX_GPUS][MAX_MIGS + 1];

/* What tells one version of a file from the next; a rename changes the inode. */
struct signature {
    struct timespec modified;
    off_t size;
    ino_t inode;
};
static struct signature profile_seen, control_seen;

const char *state_folder(void)
{
    static char folder[PATH_MAX];
    Dl_info info;
    if (folder[0] == '\0' && dladdr((void *)&lock, &info) && info.dli_fname) {
        const char *slash = strrchr(info.dli_fname, '/');
        size_t length = slash ? (size_t)(slash - info.dli_fname) : 0;
        snprintf(folder, sizeof folder, "%.*s", (int)length, length ? info.dli_fname : ".");
        if (length == 0)
            strcpy(folder, ".");
    }
    return folder;
}

static struct signature signature_of(const char *path)
{
    struct stat found;
    struct signature signature;
    memset(&signature, 0, sizeof signature);
    if (stat(path, &found) == 0) {
        signature.modified = found.st_mtim;
        signature.size = found.st_size;
        signature.inode = found.st_ino;
    }
    return signature;
}

static int same(const struct signature *a, const struct signature *b)
{
    return a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec &&
           a->size == b->size && a->inode == b->inode;
}

/* Takes over changed files. After a failed read the last good machine stays, until the next change. */
static int refresh(void)
{
    static struct machine next;
    char profile[PATH_MAX + 32], control[PATH_MAX + 32];
    snprintf(profile, sizeof profile, "%s/gpudetour-nvml.conf", state_folder());
    snprintf(control, sizeof control, "%s/gpudetour-nvml.control", state_folder());
    struct signature profile_now = signature_of(profile), control_now = signature_of(control);
    if (same(&profile_now, &profile_seen) && same(&control_now, &control_seen))
        return profile_now.inode ? 0 : -1;
    profile_seen = profile_now;
    control_seen = control_now;
    if (machine_read(&next, profile, control) != 0)
        return -1;
    state.machine = next;
    return 0;
}

static void pause_unlocked(void)
{
    const struct timespec moment = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
    pthread_mutex_unlock(&lock);
    nanosleep(&moment, NULL);
    pthread_mutex_lock(&lock);
}

static int told_to_hang(const char *function, int slot)
{
    const char *hang = state.machine.hang;
    int hit = strcmp(hang, "*") == 0 || strcmp(hang, function) == 0;
    return hit && (state.machine.hang_slot < 0 || state.machine.hang_slot == slot);
}

/* `slot` is whose GPU the function is about, or -1. */
static int enter(const char *function, int slot)
{
    pthread_mutex_lock(&lock);
    int failed = refresh();
    while (told_to_hang(function, slot)) {
        pause_unlocked();
        failed = refresh();
    }
    return failed;
}

static nvmlReturn_t planned_fault(const char *function, int slot)
{
    for (int i = 0; i < state.machine.faults_count; i++) {
        const struct fault *fault = &state.machine.faults[i];
        int hit = strcmp(fault->function, "*") == 0 || strcmp(fault->function, function) == 0;
        if (hit && (fault->slot < 0 || fault->slot == slot))
            return fault->code;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t begin(const char *function)
{
    enter(function, -1);
    if (state.users == 0)
        return NVML_ERROR_UNINITIALIZED;
    return planned_fault(function, -1);
}

/* Handles may be garbage: a pointer is trusted only after it was found in our own table. */
static int is_handle(nvmlDevice_t device)
{
    uintptr_t at = (uintptr_t)device, first = (uintptr_t)&devices[0][0];
    return at >= first && at < first + sizeof devices &&
           (at - first) % sizeof(struct nvmlDevice) == 0;
}

nvmlReturn_t begin_device(const char *function, nvmlDevice_t device)
{
    enter(function, is_handle(device) ? device->slot : -1);
    if (state.users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (!is_handle(device) || device_index(device->slot) < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (slot_is_lost(device->slot))
        return NVML_ERROR_GPU_IS_LOST;
    if (device->mig >= state.machine.gpus[device->slot].migs_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    return planned_fault(function, device->slot);
}

nvmlReturn_t begin_gpu(const char *function, nvmlDevice_t device)
{
    nvmlReturn_t code = begin_device(function, device);
    return code == NVML_SUCCESS && device->mig >= 0 ? NVML_ERROR_NOT_SUPPORTED : code;
}

nvmlReturn_t end(nvmlReturn_t code)
{
    pthread_mutex_unlock(&lock);
    return code;
}

/* As the driver does it, once: a GPU that appears later is seen only after shutdown and init. */
static void enumerate(void)
{
    state.enumerated_count = 0;
    for (int slot = 0; slot < MAX_GPUS; slot++) {
        const struct gpu *gpu = &state.machine.gpus[slot];
        if (!gpu->known || gpu->presence == OFF_BUS)
            continue;
        int at = state.enumerated_count++;
        while (at > 0 && state.machine.gpus[state.enumerated[at - 1]].order > gpu->order) {
            state.enumerated[at] = state.enumerated[at - 1];
            at--;
        }
        state.enumerated[at] = slot;
    }
    for (int slot = 0; slot < MAX_GPUS; slot++)
        for (int mig = -1; mig < MAX_MIGS; mig++)
            devices[slot][mig + 1] = (struct nvmlDevice){.slot = slot, .mig = mig};
}

nvmlReturn_t state_init(const char *function)
{
    if (enter(function, -1) != 0)
        return NVML_ERROR_UNKNOWN;
    if (state.machine.init_fault >= 0)
        return (nvmlReturn_t)state.machine.init_fault;
    nvmlReturn_t code = planned_fault(function, -1);
    if (code != NVML_SUCCESS)
        return code;
    if (state.users++ == 0) {
        state.generation++;
        enumerate();
    }
    return NVML_SUCCESS;
}

nvmlReturn_t state_shutdown(const char *function)
{
    nvmlReturn_t code = begin(function);
    if (code == NVML_SUCCESS)
        state.users--;
    return code;
}

nvmlDevice_t device_handle(int slot, int mig)
{
    return &devices[slot][mig + 1];
}

int device_index(int slot)
{
    for (int i = 0; i < state.enumerated_count; i++)
        if (state.enumerated[i] == slot)
            return i;
    return -1;
}

int slot_is_lost(int slot)
{
    const struct gpu *gpu = &state.machine.gpus[slot];
    return !gpu->known || gpu->presence != PRESENT;
}

struct gpu *gpu_of(nvmlDevice_t device)
{
    return &state.machine.gpus[device->slot];
}

struct mig *mig_of(nvmlDevice_t device)
{
    return device->mig < 0 ? NULL : &gpu_of(device)->migs[device->mig];
}

nvmlReturn_t copy_text(const char *from, char *to, unsigned int size)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (from[0] == '\0')
        return NVML_ERROR_NOT_SUPPORTED;
    if (strlen(from) + 1 > size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return NVML_SUCCESS;
}

nvmlReturn_t copy_number(int64_t from, unsigned int *to)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (from < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *to = (unsigned int)from;
    return NVML_SUCCESS;
}

/* Which processes run on a GPU. Process ids are the host's, as with the real driver. */
#include "state.h"

#include <string.h>

static int belongs(const struct process *process, const char *kind, const struct mig *mig)
{
    if (strcmp(process->kind, kind) != 0)
        return 0;
    return !mig || (process->gi == mig->gi && process->ci == mig->ci);
}

/* The size query: too small a buffer (0 at first) gets the needed count back. */
static nvmlReturn_t list(nvmlDevice_t device, const char *kind, unsigned int *count,
                         nvmlProcessInfo_t *out)
{
    const struct gpu *gpu = gpu_of(device);
    unsigned int found = 0;
    if (!count || (*count > 0 && !out))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < gpu->processes_count; i++) {
        const struct process *process = &gpu->processes[i];
        if (!belongs(process, kind, mig_of(device)))
            continue;
        if (found < *count)
            out[found] = (nvmlProcessInfo_t){.pid = process->pid,
                                             .usedGpuMemory = process->memory,
                                             .gpuInstanceId = process->gi,
                                             .computeInstanceId = process->ci};
        found++;
    }
    int fits = found <= *count;
    *count = found;
    return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

#define PROCESSES_FUNCTION(name, kind)                                                         \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *out) \
    {                                                                                          \
        nvmlReturn_t code = begin_device(#name, device);                                       \
        return end(code != NVML_SUCCESS ? code : list(device, kind, count, out));              \
    }

PROCESSES_FUNCTION(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

static const char *name_of(unsigned int pid)
{
    for (int i = 0; i < state.enumerated_count; i++) {
        const struct gpu *gpu = &state.machine.gpus[state.enumerated[i]];
        for (int j = 0; j < gpu->processes_count; j++)
            if (gpu->processes[j].pid == pid)
                return gpu->processes[j].name;
    }
    return NULL;
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *out, unsigned int size)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS) {
        const char *name = name_of(pid);
        code = name ? copy_text(name, out, size) : NVML_ERROR_NOT_FOUND;
    }
    return end(code);
}

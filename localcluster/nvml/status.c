/* How a GPU is doing: memory, load, temperature and modes. */
#include "state.h"

static unsigned long long size_of(int64_t fact)
{
    return fact < 0 ? 0 : (unsigned long long)fact;
}

struct memory {
    unsigned long long total, reserved, used;
};

/* A MIG device has its own memory; what runs on it is counted from its processes. */
static struct memory memory_of(nvmlDevice_t device)
{
    const struct gpu *gpu = gpu_of(device);
    const struct mig *mig = mig_of(device);
    if (!mig)
        return (struct memory){size_of(gpu->memory_total), size_of(gpu->memory_reserved),
                               size_of(gpu->memory_used)};
    struct memory memory = {mig->memory_mib << 20, 0, 0};
    for (int i = 0; i < gpu->processes_count; i++)
        if (gpu->processes[i].gi == mig->gi)
            memory.used += gpu->processes[i].memory;
    return memory;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out)
{
    nvmlReturn_t code = begin_device(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && gpu_of(device)->memory_total < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        struct memory memory = memory_of(device);
        /* The first version of this call counts what the driver keeps for itself as used. */
        out->total = memory.total;
        out->used = memory.used + memory.reserved;
        out->free = memory.total - out->used;
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out)
{
    nvmlReturn_t code = begin_device(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && out->version != NVML_MEMORY_V2)
        code = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (code == NVML_SUCCESS && gpu_of(device)->memory_total < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        struct memory memory = memory_of(device);
        out->total = memory.total;
        out->reserved = memory.reserved;
        out->used = memory.used;
        out->free = memory.total - memory.used - memory.reserved;
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && gpu_of(device)->bar1_total < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        out->bar1Total = size_of(gpu_of(device)->bar1_total);
        out->bar1Used = size_of(gpu_of(device)->bar1_used);
        out->bar1Free = out->bar1Total - out->bar1Used;
    }
    return end(code);
}

/* With MIG enabled the driver reports no load for the GPU as a whole. */
EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && gpu_of(device)->mig_mode > 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->utilization_gpu, &out->gpu);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->utilization_memory, &out->memory);
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor,
                                             unsigned int *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS)
        code = sensor == 0 ? copy_number(gpu_of(device)->temperature, out)
                           : NVML_ERROR_INVALID_ARGUMENT;
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device,
                                                           unsigned long long *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && gpu_of(device)->clocks_event_reasons < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS)
        *out = size_of(gpu_of(device)->clocks_event_reasons);
    return end(code);
}

GPU_NUMBER_FUNCTION(nvmlDeviceGetPowerUsage, power_usage)
GPU_NUMBER_FUNCTION(nvmlDeviceGetEnforcedPowerLimit, power_limit)
GPU_NUMBER_FUNCTION(nvmlDeviceGetFanSpeed, fan_speed)
GPU_NUMBER_FUNCTION(nvmlDeviceGetPowerState, power_state)
GPU_NUMBER_FUNCTION(nvmlDeviceGetPersistenceMode, persistence_mode)
GPU_NUMBER_FUNCTION(nvmlDeviceGetComputeMode, compute_mode)
GPU_NUMBER_FUNCTION(nvmlDeviceGetDisplayActive, display_active)
GPU_NUMBER_FUNCTION(nvmlDeviceGetDisplayMode, display_mode)
GPU_NUMBER_FUNCTION(nvmlDeviceGetRetiredPagesPendingStatus, retired_pages_pending)

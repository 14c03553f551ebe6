/* MIG: whether a GPU is split, and the devices that it is split into. */
#include "state.h"

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current,
                                         unsigned int *pending)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->mig_mode, current);
    if (code == NVML_SUCCESS) {
        int64_t next = gpu_of(device)->mig_mode_pending;
        code = copy_number(next < 0 ? gpu_of(device)->mig_mode : next, pending);
    }
    return end(code);
}

/* 0 where MIG is not supported: the one call of this kind that does not refuse. */
EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS) {
        int64_t most = gpu_of(device)->mig_max;
        code = copy_number(most < 0 ? 0 : most, out);
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                        nvmlDevice_t *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS) {
        const struct gpu *gpu = gpu_of(device);
        if (gpu->mig_mode < 0)
            code = NVML_ERROR_NOT_SUPPORTED;
        else if (!out || (int64_t)index >= gpu->mig_max)
            code = NVML_ERROR_INVALID_ARGUMENT;
        else if (index >= (unsigned int)gpu->migs_count)
            code = NVML_ERROR_NOT_FOUND;
        else
            *out = device_handle(device->slot, (int)index);
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_device(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_number(device->mig >= 0, out));
}

/* For the functions below that only MIG devices answer. */
static nvmlReturn_t begin_mig(const char *function, nvmlDevice_t device)
{
    nvmlReturn_t code = begin_device(function, device);
    return code == NVML_SUCCESS && device->mig < 0 ? NVML_ERROR_INVALID_ARGUMENT : code;
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device,
                                                                 nvmlDevice_t *out)
{
    nvmlReturn_t code = begin_mig(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS)
        *out = device_handle(device->slot, -1);
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_mig(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_number(mig_of(device)->gi, out));
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_mig(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_number(mig_of(device)->ci, out));
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
    nvmlReturn_t code = begin_mig(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) {
        const struct mig *mig = mig_of(device);
        *out = (nvmlDeviceAttributes_t){
            .multiprocessorCount = mig->multiprocessors,
            .sharedCopyEngineCount = mig->copy_engines,
            .sharedDecoderCount = mig->decoders,
            .sharedEncoderCount = mig->encoders,
            .sharedJpegCount = mig->jpegs,
            .sharedOfaCount = mig->ofas,
            .gpuInstanceSliceCount = mig->gi_slices,
            .computeInstanceSliceCount = mig->ci_slices,
            .memorySizeMB = mig->memory_mib,
        };
    }
    return end(code);
}

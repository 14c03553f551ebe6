/* The signs of failing hardware: ECC counters, remapped rows, the recovery action. */
#include "state.h"

EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current,
                                         unsigned int *pending)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->ecc_mode, current);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->ecc_mode, pending);
    return end(code);
}

static nvmlReturn_t ecc_count(const struct gpu *gpu, unsigned int error, unsigned int counter,
                              unsigned long long *out)
{
    if (!out || error > 1 || counter > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (gpu->ecc_mode <= 0)
        return NVML_ERROR_NOT_SUPPORTED;
    /* error: 0 corrected, 1 uncorrected; counter: 0 volatile (since boot), 1 aggregate */
    const int64_t counts[2][2] = {
        {gpu->ecc_corrected_volatile, gpu->ecc_corrected_aggregate},
        {gpu->ecc_uncorrected_volatile, gpu->ecc_uncorrected_aggregate},
    };
    int64_t count = counts[error][counter];
    *out = count < 0 ? 0 : (unsigned long long)count;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int error,
                                                unsigned int counter, unsigned long long *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : ecc_count(gpu_of(device), error, counter, out));
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected,
                                              unsigned int *uncorrected, unsigned int *pending,
                                              unsigned int *failure)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->remapped_correctable, corrected);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->remapped_uncorrectable, uncorrected);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->remapped_pending, pending);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->remapped_failure, failure);
    return end(code);
}

static int64_t links_of(const struct gpu *gpu)
{
    int64_t count = 0;
    for (int link = 0; link < MAX_LINKS; link++)
        count += gpu->links[link].number >= 0;
    return count > 0 ? count : -1;
}

static int64_t field(const struct gpu *gpu, unsigned int id)
{
    switch (id) {
    case NVML_FI_DEV_NVLINK_LINK_COUNT:
        return links_of(gpu);
    case NVML_FI_DEV_REMAPPED_COR:
        return gpu->remapped_correctable;
    case NVML_FI_DEV_REMAPPED_UNC:
        return gpu->remapped_uncorrectable;
    case NVML_FI_DEV_REMAPPED_PENDING:
        return gpu->remapped_pending;
    case NVML_FI_DEV_REMAPPED_FAILURE:
        return gpu->remapped_failure;
    case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION:
        return gpu->recovery_action;
    default:
        return -1;
    }
}

/* The call succeeds as a whole; each value carries its own return code. */
EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count,
                                             nvmlFieldValue_t *values)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && (!values || count <= 0))
        code = NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; code == NVML_SUCCESS && i < count; i++) {
        values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        values[i].value.ull = 0;
        values[i].nvmlReturn =
            copy_number(field(gpu_of(device), values[i].fieldId), &values[i].value.ui);
    }
    return end(code);
}

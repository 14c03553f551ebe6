/* Lifecycle, versions and error texts. */
#include "state.h"

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return end(state_init(__func__));
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return end(state_init(__func__));
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    return end(state_shutdown(__func__));
}

EXPORT const char *nvmlErrorString(nvmlReturn_t code)
{
    static const struct {
        nvmlReturn_t code;
        const char *text;
    } texts[] = {
        {NVML_SUCCESS, "Success"},
        {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
        {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
        {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
        {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
        {NVML_ERROR_NOT_FOUND, "Not Found"},
        {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
        {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
        {NVML_ERROR_TIMEOUT, "Timeout"},
        {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
        {NVML_ERROR_MEMORY, "Insufficient Memory"},
        {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].code == code)
            return texts[i].text;
    return "Unknown Error";
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int size)
{
    nvmlReturn_t code = begin(__func__);
    return end(code != NVML_SUCCESS ? code : copy_text(state.machine.driver, out, size));
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned int size)
{
    nvmlReturn_t code = begin(__func__);
    return end(code != NVML_SUCCESS ? code : copy_text(state.machine.nvml, out, size));
}

static nvmlReturn_t cuda_version(nvmlReturn_t code, int *out)
{
    if (code != NVML_SUCCESS)
        return code;
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    *out = state.machine.cuda;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out)
{
    return end(cuda_version(begin(__func__), out));
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    return end(cuda_version(begin(__func__), out));
}
